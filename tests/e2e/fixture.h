// What every end-to-end program stands on: the world and its origin, one bottle, and questions about what arrived. The same programs run on
// Docker and, with BOTTLE_E2E_BACKEND=kubernetes, on the node of scripts/cluster.
#ifndef TESTS_E2E_FIXTURE_H_
#define TESTS_E2E_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace e2e {

struct Output {
  int code = -1;
  std::string out, err;
  double seconds = 0;
};

// Runs a program; a program that is not done in `timeout_s` is ended (code 124).
Output run(const std::vector<std::string>& argv, int timeout_s = 60);

// Waits until `done`, at most `seconds`; false when it never was.
bool wait_until(const std::function<bool()>& done, double seconds);

struct Mark {  // a moment: what came later is asked for with it
  size_t requests = 0, dns = 0;
  std::vector<long> sinks;
};

// BOTTLE_E2E_BACKEND is kubernetes.
bool on_kubernetes();

// One world and one bottle for the program: added with ::testing::AddGlobalTestEnvironment.
class World : public ::testing::Environment {
 public:
  World(std::string bottle_name, std::string agent_command) : name_(std::move(bottle_name)), command_(std::move(agent_command)) {}
  void SetUp() override;
  void TearDown() override;

  Mark mark() const;
  std::vector<nlohmann::json> requests(const Mark& since) const;
  std::vector<nlohmann::json> dns(const Mark& since) const;
  long count(const std::string& destination, const std::string& protocol = "", const std::string& port = "") const;
  // Empty when nothing reached a sink or the trap since; else what did.
  std::string arrived(const Mark& since) const;

  // A command in the agent's container, as the agent.
  Output exec(const std::vector<std::string>& argv, int timeout_s = 60) const;
  Output python(const std::string& script, const std::vector<std::string>& args = {}, int timeout_s = 60) const;
  // A command in a container of the agent's image that is in no bottle.
  Output outside(const std::vector<std::string>& argv, int timeout_s = 60) const;
  std::string address() const;       // of the bottle, as this machine reaches it
  std::string host_address() const;  // of this machine, as the bottle would reach it
  // Everything the backend tells about the bottle: its objects, and what its containers print.
  std::string description() const;

  // Kubernetes only. `kubectl` in the bottle's namespace, which is called like the bottle.
  Output kubectl(std::vector<std::string> args, int timeout_s = 60) const;
  // kubectl apply of one text; the file it makes is gone afterwards.
  Output apply(const std::string& yaml, const std::string& ns = "") const;
  std::string jsonpath(const std::string& object, const std::string& path) const;
  // `scripts/cluster exec`: a command inside the node.
  Output on_node(std::vector<std::string> argv, int timeout_s = 60) const;
  // More namespaces of the program, made and removed with its own; the controller looks after them too. Before SetUp.
  void also(const std::string& ns) { more_namespaces_.push_back(ns); }

  // Docker only.
  std::string container(const std::string& role) const { return "claude-bottle-" + role + "-" + name_; }
  const std::string& name() const { return name_; }
  const std::string& dir() const { return dir_; }
  const std::string& token() const { return token_; }
  const std::string& bottle_file() const { return file_; }

 private:
  void up_on_docker();
  void up_on_kubernetes();
  void down_on_kubernetes();

  std::string name_, command_, dir_, file_, token_;
  std::vector<std::string> more_namespaces_;
  int controller_ = 0;  // its process
};

extern World* world;

// The route table of the tests, as a bottle file.
// `upstream_ca` is a PEM file that egress is to trust, empty on Docker, where the command line names it.
std::string bottle_yaml(const std::string& name, const std::string& command, const std::string& token, const std::string& upstream_ca = "");

// Shared by the files of the fixture.
extern const std::string kBin;
std::string slurp(const std::string& path);

// The raw client in the agent (client.cc): sends bytes and prints what came back.
extern const char kClient[];

}  // namespace e2e

#endif  // TESTS_E2E_FIXTURE_H_
