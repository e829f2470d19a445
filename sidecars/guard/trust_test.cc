#include "sidecars/guard/trust.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "controller/pki/pki.h"

namespace bottle::guard {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kNow = 1'800'000'000;

// A folder with roots, a CA and the kubelet's kind of volume (files are links into a hidden folder).
class Trust : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/bottle-trust-test-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
    for (const char* sub : {"/in/..data", "/extra/..data", "/out", "/upstream"}) ASSERT_TRUE(make_dirs(dir_ + sub, 0755));
    root_ = cert();
    ca_ = cert();
    extra_ = cert();
    write("/roots.pem", "# public roots\n" + root_);
    write("/ca.pem", ca_);
    write("/in/..data/wgetrc", "use_proxy = on\n");
    ASSERT_EQ(symlink("..data/wgetrc", (dir_ + "/in/wgetrc").c_str()), 0);
    write("/extra/..data/upstream-0.pem", extra_);
    ASSERT_EQ(symlink("..data/upstream-0.pem", (dir_ + "/extra/upstream-0.pem").c_str()), 0);
    paths_ = {dir_ + "/ca.pem", dir_ + "/roots.pem", dir_ + "/in", dir_ + "/extra", dir_ + "/out", dir_ + "/upstream"};
  }
  void TearDown() override { (void)remove_tree(dir_); }

  static std::string cert() {
    auto ca = pki::make_egress_ca(KeyType::kEcdsaP256, kNow);
    return ca ? ca->cert_pem : "";
  }
  void write(const std::string& file, const std::string& text) { ASSERT_TRUE(write_file(dir_ + file, text, 0644)); }
  std::string read(const std::string& file) {
    auto text = read_file(dir_ + file);
    return text ? *text : "(none)";
  }

  std::string dir_, root_, ca_, extra_;
  TrustPaths paths_;
};

TEST_F(Trust, WritesEveryFileTheAgentsVariablesName) {
  ASSERT_TRUE(write_trust(paths_));
  EXPECT_EQ(read("/out/wgetrc"), "use_proxy = on\n");
  EXPECT_EQ(read("/out/ca.pem"), ca_);
  EXPECT_EQ(read("/out/bundle.pem"), root_ + ca_);
  EXPECT_EQ(read("/out/truststore.p12").front(), '\x30');
  EXPECT_EQ(read("/out/..data"), "(none)");
  struct stat st {};
  ASSERT_EQ(stat((dir_ + "/out/bundle.pem").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0644u);
}

TEST_F(Trust, UpstreamTrustsTheAdditionalRootsAndNotTheEgressCa) {
  ASSERT_TRUE(write_trust(paths_));
  EXPECT_EQ(read("/upstream/upstream-ca.pem"), root_ + extra_);
  EXPECT_THAT(read("/out/bundle.pem"), Not(HasSubstr(extra_)));
}

TEST_F(Trust, WorksWithoutAdditionsAndASecondTime) {
  paths_.trust_in = paths_.upstream_in = "";
  ASSERT_TRUE(write_trust(paths_));
  ASSERT_TRUE(write_trust(paths_));  // the guard of a new sandbox finds its own files
  EXPECT_EQ(read("/upstream/upstream-ca.pem"), root_);
}

TEST_F(Trust, SaysWhatIsMissingOrNoCertificate) {
  const std::string good = paths_.roots;
  paths_.roots = dir_ + "/none";
  EXPECT_THAT(write_trust(paths_).message(), HasSubstr("public roots"));
  paths_.roots = good;
  write("/extra/..data/upstream-0.pem", "not a certificate");
  EXPECT_THAT(write_trust(paths_).message(), HasSubstr("egress.upstreamCAs"));
  write("/ca.pem", "not a certificate");
  EXPECT_THAT(write_trust(paths_).message(), HasSubstr("trust for the agent"));
  EXPECT_EQ(read("/out/bundle.pem"), "(none)");
}

}  // namespace
}  // namespace bottle::guard
