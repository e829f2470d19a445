// What every end-to-end program stands on: the world and its origin, one bottle, and questions about what arrived.
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
  std::string container(const std::string& role) const { return "claude-bottle-" + role + "-" + name_; }
  const std::string& name() const { return name_; }
  const std::string& dir() const { return dir_; }
  const std::string& token() const { return token_; }
  const std::string& bottle_file() const { return file_; }

 private:
  std::string name_, command_, dir_, file_, token_;
  std::string origin_job_;
};

extern World* world;

// The route table of the tests, as a bottle file.
std::string bottle_yaml(const std::string& name, const std::string& command, const std::string& token);

// The raw client in the agent (client.cc): sends bytes and prints what came back.
extern const char kClient[];

}  // namespace e2e

#endif  // TESTS_E2E_FIXTURE_H_
