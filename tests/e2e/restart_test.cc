// However containers die and come back, and in whatever order, the agent's namespace is never open: the agent dials in a loop from
// its first instruction on, and not one packet arrives.
#include <ctime>
#include <iostream>

#include "tests/e2e/fixture.h"

namespace e2e {
namespace {

class Restarts : public ::testing::TestWithParam<std::vector<std::string>> {};

// Each step is "VERB ROLE" for the engine; the round runs 20 times. Steps do not wait for one another's effects.
TEST_P(Restarts, NotOnePacket) {
  const Mark before = world->mark();
  int dialled = 0;
  for (int i = 0; i < 20; ++i) {
    for (const auto& step : GetParam()) {
      const auto space = step.find(' ');
      run({"docker", step.substr(0, space), "-t", "0", world->container(step.substr(space + 1))}, 30);
    }
    // The agent that runs now has had its chance to dial before the next blow.
    const double now = static_cast<double>(time(nullptr));
    dialled += wait_until([&] { return strtod(run({"docker", "logs", "--tail", "1", world->container("agent")}).out.c_str(), nullptr) > now; }, 3);
  }
  EXPECT_EQ(world->arrived(before), "");
  RecordProperty("rounds in which the agent came back", dialled);
  std::cout << "the agent came back and dialled in " << dialled << " of 20 rounds\n";
}
INSTANTIATE_TEST_SUITE_P(Orders, Restarts,
                         ::testing::Values(std::vector<std::string>{"restart agent"}, std::vector<std::string>{"restart egress"},
                                           std::vector<std::string>{"restart guard", "restart agent"},
                                           std::vector<std::string>{"restart guard", "restart egress", "restart agent"},
                                           std::vector<std::string>{"stop guard", "restart agent", "restart guard", "restart agent"},
                                           std::vector<std::string>{"stop egress", "restart agent", "restart egress"}),
                         [](const auto& info) {
                           std::string n;
                           for (const auto& s : info.param) n += s + "_";
                           for (char& c : n)
                             if (c == ' ') c = '_';
                           return n.substr(0, n.size() - 1);
                         });

}  // namespace
}  // namespace e2e

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // The agent itself is the dialler.
  ::testing::AddGlobalTestEnvironment(new e2e::World(
      "e2e-restart",
      R"Y(["python3", "-uc", "import socket, time\ndef d(k, a, p):\n  try:\n    s = socket.socket(2, k); s.settimeout(0.2)\n    s.sendto(b'x', (a, p)) if k == 2 else s.connect((a, p))\n  except OSError: pass\nwhile True:\n  for a in ('203.0.113.66', '169.254.169.254', '10.99.0.1', '198.51.100.7'): d(1, a, 443); d(2, a, 53)\n  print(time.time())"])Y"));
  return RUN_ALL_TESTS();
}
