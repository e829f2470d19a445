#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace bottle {
namespace {

class FileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/bottle-file-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(dir_).is_ok()); }
  mode_t mode(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  std::string dir_;
};

TEST_F(FileTest, WritesWholeWithTheExactModeAndLeavesNoTemporaryFile) {
  mode_t old = ::umask(077);
  ASSERT_TRUE(write_file(dir_ + "/a", "one", 0644).is_ok());
  ::umask(old);
  EXPECT_EQ(mode(dir_ + "/a"), 0644u);
  ASSERT_TRUE(write_file(dir_ + "/a", "two", 0600).is_ok());
  EXPECT_EQ(*read_file(dir_ + "/a"), "two");
  EXPECT_EQ(mode(dir_ + "/a"), 0600u);
  EXPECT_EQ(::unlink((dir_ + "/a").c_str()), 0);
  EXPECT_EQ(::rmdir(dir_.c_str()), 0) << "a temporary file was left behind";
  ASSERT_EQ(::mkdir(dir_.c_str(), 0700), 0);
}

TEST_F(FileTest, ReadsNothingBeyondTheLimit) {
  ASSERT_TRUE(write_file(dir_ + "/big", std::string(100, 'x'), 0600).is_ok());
  EXPECT_EQ(read_file(dir_ + "/big", 99).status().code(), Code::kExhausted);
  EXPECT_TRUE(read_file(dir_ + "/big", 100).is_ok());
  EXPECT_EQ(read_file(dir_ + "/none").status().code(), Code::kNotFound);
}

TEST_F(FileTest, MakesFoldersWithTheModeAndTightensAnExistingOne) {
  ASSERT_TRUE(make_dirs(dir_ + "/x/y", 0700).is_ok());
  EXPECT_EQ(mode(dir_ + "/x"), 0700u);
  ASSERT_EQ(::chmod((dir_ + "/x/y").c_str(), 0755), 0);
  ASSERT_TRUE(make_dirs(dir_ + "/x/y", 0700).is_ok());
  EXPECT_EQ(mode(dir_ + "/x/y"), 0700u);
  ASSERT_TRUE(write_file(dir_ + "/f", "", 0600).is_ok());
  EXPECT_EQ(make_dirs(dir_ + "/f", 0700).code(), Code::kConflict);
}

TEST_F(FileTest, RemovesATreeWithoutFollowingLinks) {
  ASSERT_TRUE(write_file(dir_ + "/keep", "k", 0600).is_ok());
  ASSERT_TRUE(make_dirs(dir_ + "/t", 0700).is_ok());
  ASSERT_EQ(::symlink((dir_ + "/keep").c_str(), (dir_ + "/t/link").c_str()), 0);
  ASSERT_TRUE(remove_tree(dir_ + "/t").is_ok());
  EXPECT_EQ(*read_file(dir_ + "/keep"), "k");
  EXPECT_TRUE(remove_tree(dir_ + "/t").is_ok());
}

}  // namespace
}  // namespace bottle
