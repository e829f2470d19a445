// The half of the fixture that puts the bottle on a node: a controller as a process of this machine, a namespace, a Secret, a Bottle.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

std::string variable(const char* name) { return getenv(name) != nullptr ? getenv(name) : ""; }

}  // namespace

Output World::kubectl(std::vector<std::string> args, int timeout_s) const {
  std::vector<std::string> all = {variable("BOTTLE_CLUSTER_BIN") + "/kubectl", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE"), "--namespace", name_};
  all.insert(all.end(), args.begin(), args.end());
  return run(all, timeout_s);
}

Output World::apply(const std::string& yaml, const std::string& ns) const {
  const std::string file = dir_ + "/apply.yaml";
  std::ofstream(file) << yaml;
  std::vector<std::string> args = {"apply", "-f", file};
  if (!ns.empty()) args.insert(args.end(), {"--namespace", ns});
  const Output o = kubectl(args);
  unlink(file.c_str());
  return o;
}

std::string World::jsonpath(const std::string& object, const std::string& path) const {
  return kubectl({"get", object, "-o", "jsonpath=" + path}).out;
}

Output World::on_node(std::vector<std::string> argv, int timeout_s) const {
  std::vector<std::string> all = {std::string(BOTTLE_SOURCE_DIR) + "/scripts/cluster", "exec", "--id", variable("BOTTLE_CLUSTER_NODE_ID")};
  all.insert(all.end(), argv.begin(), argv.end());
  return run(all, timeout_s);
}

std::string World::host_address() const {
  if (on_kubernetes()) {
    // The node's default route leads to this machine.
    const Output route = on_node({"sh", "-c", "ip route show default | cut -d' ' -f3"});
    return route.out.substr(0, route.out.find('\n'));
  }
  const Output gateway = run({"sh", "-c", "docker inspect -f '{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}' " + container("guard")});
  return gateway.out.substr(0, gateway.out.find('\n'));
}

void World::up_on_kubernetes() {
  for (const char* v : {"BOTTLE_KUBECONFIG_NODE", "BOTTLE_CLUSTER_BIN", "BOTTLE_CLUSTER_NODE_ID"})
    ASSERT_NE(variable(v), "") << v << " is not set: scripts/test cluster runs these tests";
  const Output crd = kubectl({"apply", "--server-side", "-f", std::string(BOTTLE_SOURCE_DIR) + "/crds/bot-bottle.dev_bottles.yaml"});
  ASSERT_EQ(crd.code, 0) << crd.err;
  ASSERT_EQ(kubectl({"wait", "--for=condition=Established", "crd/bottles.bot-bottle.dev", "--timeout=30s"}).code, 0);
  std::string namespaces = name_;
  for (const auto& ns : more_namespaces_) namespaces += "," + ns;
  // What a run that was killed left there would be taken for this one's.
  down_on_kubernetes();
  for (size_t from = 0, to; from <= namespaces.size(); from = to + 1) {
    to = std::min(namespaces.find(',', from), namespaces.size());
    const Output made = kubectl({"create", "namespace", namespaces.substr(from, to - from)});
    ASSERT_EQ(made.code, 0) << made.err;
  }
  controller_ = fork();
  if (controller_ == 0) {
    const int log = open((dir_ + "/controller.log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    execl((kBin + "/bottle-controller").c_str(), "bottle-controller", "--kubeconfig", variable("BOTTLE_KUBECONFIG_NODE").c_str(), "--watch-namespace",
          namespaces.c_str(), "--leader-elect=false", "--metrics-bind-address", "0", "--probe-bind-address", "0", "--log-level", "debug", nullptr);
    _exit(127);
  }
  ASSERT_GT(controller_, 0);
  const Output applied = kubectl({"apply", "-f", file_});
  ASSERT_EQ(applied.code, 0) << applied.err;
  const Output pod = kubectl({"run", "outside", "--image=bot-bottle/agent:latest", "--image-pull-policy=Never", "--grace-period=0", "--command", "--", "sleep", "infinity"});
  EXPECT_EQ(pod.code, 0) << pod.err;
  const Output ready = kubectl({"wait", "--for=condition=Ready", "bottle/" + name_, "--timeout=120s"}, 130);
  ASSERT_EQ(ready.code, 0) << ready.err << kubectl({"get", "bottle", name_, "-o", "yaml"}).out << run({"tail", "-n", "30", dir_ + "/controller.log"}).out;
  ASSERT_EQ(kubectl({"wait", "--for=condition=Ready", "pod/outside", "--timeout=60s"}, 70).code, 0);
}

void World::down_on_kubernetes() {
  if (controller_ > 0) {
    kill(controller_, SIGTERM);
    int status = 0;
    if (!wait_until([&] { return waitpid(controller_, &status, WNOHANG) == controller_; }, 40)) {
      ADD_FAILURE() << "the controller does not end";
      kill(controller_, SIGKILL);
      waitpid(controller_, &status, 0);
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << run({"tail", "-n", "30", dir_ + "/controller.log"}).out;
    controller_ = 0;
  }
  // Nothing of a bottle waits for the controller: deletion goes through without it.
  std::vector<std::string> args = {"delete", "namespace", "--ignore-not-found", "--timeout=60s", name_};
  args.insert(args.end(), more_namespaces_.begin(), more_namespaces_.end());
  const Output gone = kubectl(args, 90);
  EXPECT_EQ(gone.code, 0) << gone.err;
}

}  // namespace e2e
