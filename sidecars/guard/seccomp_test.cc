// Runs seccomp_probe under the shipped profile on the local engine; skips itself without one.
#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <map>
#include <sstream>

#include "base/file.h"

namespace bottle {
namespace {

int run(const std::string& command) { return system(command.c_str()); }  // NOLINT: fixed strings of this test

TEST(Seccomp, RefusesEveryWayToAVmSocketAndLetsProgramsWork) {
  if (run("docker version > /dev/null 2>&1") != 0) GTEST_SKIP() << "no container engine";
  char name[] = "/tmp/seccomp-test-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string dir = name, image = "bottle-test/seccomp-probe:" + std::to_string(getpid());
  // An image that holds the probe alone: no registry, no bind mount, so a remote engine does as well.
  EXPECT_EQ(run("cp " PROBE_BINARY " " + dir + "/probe && tar -C " + dir + " -c probe | docker import - " + image + " > /dev/null"), 0);
  EXPECT_EQ(run("docker run --rm --network none --user 1000 --cap-drop ALL --security-opt no-new-privileges "
                "--security-opt seccomp=" BOTTLE_SOURCE_DIR "/backends/docker/seccomp.json " +
                image + " /probe > " + dir + "/out"),
            0);
  (void)run("docker rmi -f " + image + " > /dev/null");
  std::map<std::string, std::string> said;
  auto out = read_file(dir + "/out");
  ASSERT_TRUE(out);
  std::istringstream lines(*out);
  for (std::string key, value; lines >> key >> value;) said[key] = value;
  (void)remove_tree(dir);

  for (const char* works : {"inet", "inet6", "unix", "netlink", "socketpair", "thread"}) EXPECT_EQ(said[works], "ok") << works;
  for (const char* refused : {"vsock", "vsock-high-bits", "alg", "io_uring", "unshare", "clone-newuser", "mount", "bpf", "keyctl",
                              "userfaultfd", "perf_event_open", "setns"})
    EXPECT_EQ(said[refused], "1") << refused << " is not refused with EPERM";
  EXPECT_EQ(said["clone3"], "38") << "libc falls back to clone only on ENOSYS";
#ifdef __x86_64__
  EXPECT_EQ(said["i386-socketcall-vsock"], "killed");
#endif
}

}  // namespace
}  // namespace bottle
