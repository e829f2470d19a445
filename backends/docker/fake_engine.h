// An engine for tests: the part of the Engine API that the backend uses, on a unix socket, with
// faults to order.
#ifndef BACKENDS_DOCKER_FAKE_ENGINE_H_
#define BACKENDS_DOCKER_FAKE_ENGINE_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backends/docker/engine_client.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace bottle::docker {

class FakeEngine {
 public:
  struct Container {
    std::string id, name, log;
    Json body;
    bool running = false;
    int exit_code = 0, starts = 0;
  };
  struct Fault {
    int status;
    std::string message;
    int times = 1;
  };

  explicit FakeEngine(std::string socket);
  ~FakeEngine();

  // Answers to the next call whose "METHOD /path?query" contains `what`.
  void fail(const std::string& what, int status, const std::string& message);
  // What a container prints when it starts, and how it ends (running on when negative); by role.
  void script(const std::string& role, const std::string& log, int exit_code = -1);
  void add_image(const std::string& name, const Json& config);
  void remove_image(const std::string& name);
  std::string add_container(const std::string& name, const Json& body, bool running = true);
  std::string add_network(const std::string& name, const Json& labels);
  void set_pull_answer(const std::string& lines);
  void kill(const std::string& name);
  void restart(const std::string& name);

  std::vector<std::string> calls() const;   // "POST /containers/create?name=…", in order
  std::vector<std::string> starts() const;  // roles, in order
  std::string all_bodies() const;           // everything that was ever sent
  std::map<std::string, Container> containers() const;  // by name
  Json networks() const;

 private:
  void handle(const httplib::Request& request, httplib::Response& response);
  void answer(const std::string& method, const std::string& path, const httplib::Request& request,
              httplib::Response& response);
  Container* find(const std::string& id_or_name);
  Json inspect(const Container& c);
  void start(Container& c);
  void report_egress(const Container& c);

  mutable std::mutex mutex_;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  std::map<std::string, Container> containers_;
  std::map<std::string, Json> networks_, volumes_, images_;
  std::map<std::string, std::pair<std::string, int>> scripts_;
  std::vector<std::pair<std::string, Fault>> faults_;
  std::vector<std::string> calls_, starts_;
  std::string bodies_, pull_answer_;
  int next_id_ = 1, generation_ = 0;
  std::jthread egress_;
};

}  // namespace bottle::docker

#endif  // BACKENDS_DOCKER_FAKE_ENGINE_H_
