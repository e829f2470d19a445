// What the integration tests stand on: a real control plane of the program's own (scripts/cluster), the controller as a process, and a node
// that is played: it binds pods, says that their containers run, and answers for their egress. Nothing runs in a pod.
#ifndef TESTS_INTEGRATION_PLANE_H_
#define TESTS_INTEGRATION_PLANE_H_

#include <gtest/gtest.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "controller/kube/client.h"
#include "tests/support/api_proxy.h"

namespace bottle::test {

using Json = nlohmann::json;

// Waits until `done`, at most `seconds`; false when it never was.
bool wait_until(const std::function<bool()>& done, double seconds = 30);

// The control plane; one for the program, taken down at its end.
class Plane : public ::testing::Environment {
 public:
  void SetUp() override;
  void TearDown() override;
  // scripts/cluster with this cluster's name; the test fails when it does.
  void cluster(const std::vector<std::string>& words);
  const std::string& kubeconfig() const { return kubeconfig_; }
  const std::string& dir() const { return dir_; }   // private to the program, removed at the end

  // Straight to the server, past any proxy. Null when there is no such object; the test fails for other answers.
  Json get(const std::string& path);
  Json post(const std::string& path, const Json& body);
  Json patch(const std::string& path, const Json& body, std::string_view type = kube::kMergePatch);
  void remove(const std::string& path);              // a 404 is fine
  kube::Client& client() { return *client_; }

 private:
  std::string id_, kubeconfig_, dir_;
  std::unique_ptr<kube::Client> client_;
};
extern Plane* plane;                                 // set by main(), which is in plane.cc

// A process of bottle-controller that goes through `proxy`.
class Controller {
 public:
  Controller(const ApiProxy& proxy, std::vector<std::string> flags = {});
  ~Controller();                                     // kill -9
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;
  void signal(int number) const;
  void kill9();                                      // and it is gone when this returns. Any thread, once
  // Exit code when it ends by itself in time; -1 when it does not, 128 + n when signal n ended it.
  int wait(double seconds);
  std::string log() const;
  double metric(const std::string& series) const;    // -1: no such series
  bool ready() const;                                // /readyz

 private:
  std::string http(uint16_t port, const std::string& path) const;
  pid_t pid_ = -1;
  std::optional<int> code_;
  std::string log_;
  uint16_t probes_ = 0, metrics_ = 0;
};

// Scheduler, kubelet and egress of every bottle's pod while it lives.
class Node {
 public:
  Node();
  ~Node();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A namespace of its own for a test, gone with everything in it when the test ends.
class Namespace {
 public:
  explicit Namespace(const std::string& name);
  ~Namespace();
  const std::string& name() const { return name_; }
  std::string path(const std::string& plural, const std::string& object = "", const std::string& subresource = "") const;
  void create_bottle(const std::string& name, const std::vector<std::string>& hosts = {"api.example.com"});
  void set_hosts(const std::string& bottle, const std::vector<std::string>& hosts);
  // The condition Ready of the Bottle's present generation.
  bool is_ready(const std::string& bottle);
  std::vector<Json> list(const std::string& plural);
  // Empty when the bottle has each of its children, once, and nothing else is here; else what is wrong.
  std::string children_of(const std::vector<std::string>& bottles);
  // Waits until the garbage collector has left nothing here. The first time takes it half a minute: so often it looks for new kinds of owners.
  bool collected();

 private:
  std::string name_;
};

}  // namespace bottle::test

#endif  // TESTS_INTEGRATION_PLANE_H_
