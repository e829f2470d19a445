#include "tests/integration/plane.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "controller/kube/config.h"
#include "controller/kube/resource.h"
#include "tests/e2e/fixture.h"

extern char** environ;

namespace bottle::test {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, kube::Resource> kKinds = {{"bottles", kube::kBottles},       {"pods", kube::kPods},
                                                      {"configmaps", kube::kConfigMaps}, {"secrets", kube::kSecrets},
                                                      {"events", kube::kEvents},         {"networkpolicies", kube::kNetworkPolicies}};

uint16_t free_port() {
  int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof a;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), size), 0);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size);
  ::close(fd);
  return ntohs(a.sin_port);
}

kube::Request request(const std::string& method, const std::string& path, const Json& body = nullptr, std::string_view type = "") {
  kube::Request r;
  r.method = method;
  r.path = path;
  if (!body.is_null()) r.body = body.dump();
  r.content_type = type;
  return r;
}

}  // namespace

Plane* plane = nullptr;

bool wait_until(const std::function<bool()>& done, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

void Plane::SetUp() {
  if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  char dir[] = "/tmp/bottle-integration-XXXXXX";
  ASSERT_NE(::mkdtemp(dir), nullptr);
  dir_ = dir;
  id_ = "it-" + std::to_string(::getpid() % 100000);
  const auto up = e2e::run({BOTTLE_SOURCE_DIR "/scripts/cluster", "up", "--control-plane", "--id", id_}, 120);
  ASSERT_EQ(up.code, 0) << up.err;
  kubeconfig_ = up.out.substr(0, up.out.find('\n'));
  cluster({"shell", "kubectl", "apply", "-k", BOTTLE_SOURCE_DIR "/crds"});
  cluster({"shell", "kubectl", "wait", "--for=condition=Established", "crd/bottles.bot-bottle.dev"});
  cluster({"shell", "kubectl", "create", "namespace", "bot-bottle-system"});
  kube::ConfigOptions options;
  options.kubeconfig = kubeconfig_;
  auto config = kube::load_config(options);
  ASSERT_TRUE(config.is_ok()) << config.status().message();
  kube::ClientOptions client_options;
  client_options.user_agent = "integration-test";
  auto client = kube::Client::create(std::move(config).value(), client_options);
  ASSERT_TRUE(client.is_ok()) << client.status().message();
  client_ = std::move(client).value();
}

void Plane::TearDown() {
  client_.reset();
  if (!id_.empty()) cluster({"down", "--purge"});
  std::error_code ignored;
  if (!dir_.empty()) fs::remove_all(dir_, ignored);
}

void Plane::cluster(const std::vector<std::string>& words) {
  std::vector<std::string> all = {BOTTLE_SOURCE_DIR "/scripts/cluster", words[0], "--id", id_};
  all.insert(all.end(), words.begin() + 1, words.end());
  const auto done = e2e::run(all, 120);
  EXPECT_EQ(done.code, 0) << words[0] << ": " << done.out << done.err;
}

Json Plane::get(const std::string& path) {
  auto a = client_->call(request("GET", path));
  if (a.is("NotFound")) return nullptr;
  EXPECT_TRUE(a.ok()) << a.status("GET " + path).message();
  return a.ok() ? Json::parse(a.body) : Json();
}
Json Plane::post(const std::string& path, const Json& body) {
  auto a = client_->call(request("POST", path, body));
  EXPECT_TRUE(a.ok()) << a.status("POST " + path).message();
  return a.ok() ? Json::parse(a.body) : Json();
}
Json Plane::patch(const std::string& path, const Json& body, std::string_view type) {
  auto a = client_->call(request("PATCH", path, body, type));
  EXPECT_TRUE(a.ok()) << a.status("PATCH " + path).message();
  return a.ok() ? Json::parse(a.body) : Json();
}
void Plane::remove(const std::string& path) {
  auto a = client_->call(request("DELETE", path));
  EXPECT_TRUE(a.ok() || a.is("NotFound")) << a.status("DELETE " + path).message();
}

Controller::Controller(const ApiProxy& proxy, std::vector<std::string> flags) : probes_(free_port()), metrics_(free_port()) {
  static int number = 0;
  const std::string base = plane->dir() + "/controller-" + std::to_string(++number);
  EXPECT_TRUE(write_file(base + ".kubeconfig", proxy.kubeconfig(), 0600).is_ok());
  log_ = base + ".log";
  flags.insert(flags.begin(), {BOTTLE_BIN_DIR "/bottle-controller", "--kubeconfig", base + ".kubeconfig", "--probe-bind-address",
                               "127.0.0.1:" + std::to_string(probes_), "--metrics-bind-address", "127.0.0.1:" + std::to_string(metrics_)});
  std::vector<char*> argv;
  for (auto& f : flags) argv.push_back(f.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 2, log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  EXPECT_EQ(::posix_spawn(&pid_, argv[0], &files, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&files);
}
Controller::~Controller() {
  kill9();
  if (::testing::Test::HasFailure() && getenv("BOTTLE_TEST_LOGS")) std::cerr << log_ << ":\n" << log() << "\n";
}
void Controller::signal(int number) const { ::kill(pid_, number); }
void Controller::kill9() {
  if (code_) return;
  ::kill(pid_, SIGKILL);
  wait(10);
}
int Controller::wait(double seconds) {
  wait_until([&] {
    int status = 0;
    if (!code_ && ::waitpid(pid_, &status, WNOHANG) == pid_) code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code_.has_value();
  }, seconds);
  return code_.value_or(-1);
}
std::string Controller::log() const {
  auto text = read_file(log_);
  return text.is_ok() ? *text : "";
}

std::string Controller::http(uint16_t port, const std::string& path) const {
  std::string body;
  CURL* c = curl_easy_init();
  curl_easy_setopt(c, CURLOPT_URL, ("http://127.0.0.1:" + std::to_string(port) + path).c_str());
  curl_easy_setopt(c, CURLOPT_TIMEOUT, 5L);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &body);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, +[](char* data, size_t size, size_t n, void* p) {
    static_cast<std::string*>(p)->append(data, size * n);
    return size * n;
  });
  if (curl_easy_perform(c) != CURLE_OK) body.clear();
  curl_easy_cleanup(c);
  return body;
}
double Controller::metric(const std::string& series) const {
  const std::string text = http(metrics_, "/metrics");
  const size_t at = text.find("\n" + series + " ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + series.size() + 2));
}
bool Controller::ready() const { return http(probes_, "/readyz") == "ok\n"; }

Namespace::Namespace(const std::string& name) : name_(name) {
  plane->post("/api/v1/namespaces", {{"metadata", {{"name", name}}}});
  // Without it no pod is admitted; the controller manager makes it, at once or when it has got over an outage.
  EXPECT_TRUE(wait_until([&] { return plane->get("/api/v1/namespaces/" + name + "/serviceaccounts/default").is_object(); }, 90));
}
Namespace::~Namespace() { plane->remove("/api/v1/namespaces/" + name_); }

std::string Namespace::path(const std::string& plural, const std::string& object, const std::string& subresource) const {
  const auto& kind = kKinds.at(plural);
  return object.empty() ? kube::collection_path(kind, name_) : kube::object_path(kind, name_, object, subresource);
}

static Json routes(const std::vector<std::string>& hosts) {
  Json out = Json::array();
  for (const auto& h : hosts) out.push_back({{"host", h}});
  return out;
}
void Namespace::create_bottle(const std::string& name, const std::vector<std::string>& hosts) {
  plane->post(path("bottles"), {{"apiVersion", "bot-bottle.dev/v1alpha1"},
                                {"kind", "Bottle"},
                                {"metadata", {{"name", name}}},
                                {"spec",
                                 {{"agent", {{"image", "bot-bottle/agent:latest"}, {"command", {"sleep", "infinity"}}}},
                                  {"egress", {{"routes", routes(hosts)}}},
                                  {"pki", {{"keyType", "ECDSA-P256"}}},
                                  {"pipelock", {{"enabled", false}}}}}});
}
void Namespace::set_hosts(const std::string& bottle, const std::vector<std::string>& hosts) {
  plane->patch(path("bottles", bottle), {{"spec", {{"egress", {{"routes", routes(hosts)}}}}}});
}

bool Namespace::is_ready(const std::string& bottle) {
  const Json b = plane->get(path("bottles", bottle));
  if (!b.is_object() || !b.contains("status")) return false;
  for (const auto& c : b["status"].value("conditions", Json::array())) {
    if (c["type"] == "Ready") return c["status"] == "True" && c["observedGeneration"] == b["metadata"]["generation"];
  }
  return false;
}
std::vector<Json> Namespace::list(const std::string& plural) {
  std::vector<Json> out;
  const Json answer = plane->get(path(plural));
  for (const auto& item : answer.value("items", Json::array())) {
    if (item["metadata"]["name"] != "kube-root-ca.crt") out.push_back(item);
  }
  return out;
}

std::string Namespace::children_of(const std::vector<std::string>& bottles) {
  std::set<std::string> want, have;
  std::ostringstream wrong;
  for (const auto& b : bottles) {
    want.insert({"pods/" + b, "configmaps/" + b + "-policy", "secrets/" + b + "-egress-ca", "networkpolicies/" + b + "-bottle"});
  }
  std::map<std::string, Json> found;
  for (const char* plural : {"pods", "configmaps", "secrets", "networkpolicies"}) {
    for (const auto& o : list(plural)) {
      const std::string id = std::string(plural) + "/" + o["metadata"]["name"].get<std::string>();
      have.insert(id);
      found[id] = o;
    }
  }
  for (const auto& w : want) {
    if (!have.count(w)) wrong << w << " is missing\n";
  }
  for (const auto& h : have) {
    if (!want.count(h)) wrong << h << " is too many\n";
  }
  for (const auto& b : bottles) {
    const Json bottle = plane->get(path("bottles", b));
    for (const auto& [id, o] : found) {
      if (!id.ends_with("/" + b) && !id.ends_with("/" + b + "-policy") && !id.ends_with("/" + b + "-egress-ca") && !id.ends_with("/" + b + "-bottle")) continue;
      if (o["metadata"].contains("deletionTimestamp")) wrong << id << " is being deleted\n";
      if (o["metadata"].value("ownerReferences", Json::array()).size() != 1 || o["metadata"]["ownerReferences"][0]["uid"] != bottle["metadata"]["uid"]) {
        wrong << id << " has not the bottle as its owner\n";
      }
    }
    // A pod that trusts another CA than the one that its egress has would be of no use.
    const std::string pod = "pods/" + b, ca = "secrets/" + b + "-egress-ca", key = "bot-bottle.dev/ca-fingerprint";
    if (found.count(pod) && found.count(ca) && found[pod]["metadata"]["annotations"].value(key, "") != found[ca]["metadata"]["annotations"].value(key, "")) {
      wrong << pod << " was made for another CA than " << ca << "\n";
    }
  }
  return wrong.str();
}

bool Namespace::collected() {
  std::string left;
  const bool gone = wait_until([&] { return (left = children_of({})).empty(); }, 90);
  EXPECT_TRUE(gone) << left;
  return gone;
}

}  // namespace bottle::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  bottle::test::plane = new bottle::test::Plane;  // gtest's
  ::testing::AddGlobalTestEnvironment(bottle::test::plane);
  return RUN_ALL_TESTS();
}
