// Measures the controller against an API server; prints one JSON object on the last line. Modes:
//   controller  launches per second beside a loop that writes the same objects raw, writes and reconciles per launch, CPU, memory at several sizes, restart
//   start       on a node: apply -> Ready of a bottle beside a bare pod of the same image, and policy change -> enforced
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include <curl/curl.h>

#include "backends/kubernetes/egress_status.h"
#include "backends/kubernetes/render.h"
#include "base/rfc3339.h"
#include "controller/bottle/parse.h"
#include "controller/kube/client.h"
#include "controller/kube/objects.h"
#include "controller/kube/resource.h"
#include "controller/pki/pki.h"

namespace {

using namespace bottle;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }
[[noreturn]] void die(const std::string& what) {
  std::cerr << "bench: " << what << "\n";
  std::exit(1);
}
void require(const kube::Answer& a, const std::string& what) {
  if (!a.ok()) die(a.status(what).message());
}
void wait_for(const std::function<bool()>& done, double seconds, const std::string& what) {
  const auto start = Clock::now();
  while (!done()) {
    if (since(start) > seconds) die("timed out: " + what);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}
double percentile(std::vector<double> v, double p) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[std::min(v.size() - 1, static_cast<size_t>(p * static_cast<double>(v.size())))];
}

std::unique_ptr<kube::Client> connect(const std::string& kubeconfig) {
  auto config = kube::load_config({kubeconfig, "", {}});
  if (!config) die(config.status().message());
  kube::ClientOptions options;
  options.user_agent = "bottle-bench";
  auto client = kube::Client::create(std::move(*config), options);
  if (!client) die(client.status().message());
  return std::move(*client);
}

kube::Request post(const kube::Resource& r, const std::string& ns, const json& body) {
  return {.method = "POST", .path = kube::collection_path(r, ns, {{"fieldManager", "bottle-bench"}}), .body = body.dump(), .content_type = {}};
}

// An EC key, because an RSA key for each bottle costs more CPU than all else together and says nothing about the controller.
json bottle_json(const std::string& ns, const std::string& name) {
  return {{"apiVersion", "bot-bottle.dev/v1alpha1"},
          {"kind", "Bottle"},
          {"metadata", {{"name", name}, {"namespace", ns}}},
          {"spec",
           {{"agent", {{"image", "bot-bottle/agent:latest"}, {"command", {"sleep", "infinity"}}}},
            {"pki", {{"keyType", "ECDSA-P256"}}},
            {"pipelock", {{"enabled", false}}},
            {"egress",
             {{"routes", json::array({{{"host", "api.example.com"},
                                       {"paths", {"/v1/"}},
                                       {"inject", json::array({{{"header", "authorization"}, {"secretKeyRef", {{"name", "example"}, {"key", "token"}}}}})}}})}}}}}};
}

void ensure_namespace(kube::Client& c, const std::string& ns) {
  const auto a = c.call(post(kube::kNamespaces, "", {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", ns}}}}));
  if (!a.ok() && !a.is("AlreadyExists")) die(a.status("create namespace " + ns).message());
}

// Runs `work(i)` for 0..n-1 on `threads` threads.
void parallel(int n, int threads, const std::function<void(int)>& work) {
  std::atomic<int> next{0};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&] {
      for (int i; (i = next.fetch_add(1)) < n;) work(i);
    });
  for (auto& t : pool) t.join();
}

// The raw loop: what a launch writes, by the same requests and as many at once as the controller has workers. Returns seconds.
double raw_loop(kube::Client& c, const std::string& ns, int n, int threads, int* objects) {
  auto ca = pki::make_egress_ca(KeyType::kEcdsaP256, std::time(nullptr));
  auto key = kubernetes::make_status_key();
  if (!ca || !key) die("cannot make keys");
  const auto parsed = parse_bottle_file(bottle_json(ns, "x").dump());
  if (!parsed.ok()) die("the bench's bottle: " + to_string(parsed.diagnostics.front(), "bench"));
  const auto start = Clock::now();
  *objects = 5;
  parallel(n, threads, [&](int i) {
    const std::string name = "raw-" + std::to_string(i);
    const auto made = c.call(post(kube::kBottles, ns, bottle_json(ns, name)));
    require(made, "create bottle");
    const json bottle = json::parse(made.body);
    Bottle b = parsed.bottles.front();
    b.name = name;
    auto p = plan(b);
    if (!p) die(p.status().message());
    const kubernetes::Owner owner{ns, name, bottle["metadata"]["uid"], 1};
    require(c.call(post(kube::kConfigMaps, ns, kubernetes::render_policy(*p, owner))), "create config map");
    require(c.call(post(kube::kSecrets, ns, kubernetes::render_egress_ca(*ca, *key, owner))), "create secret");
    require(c.call(post(kube::kNetworkPolicies, ns, kubernetes::render_network_policy(*p, owner))), "create network policy");
    require(c.call(post(kube::kPods, ns, kubernetes::render_pod(*p, owner, {}, {ca->fingerprint, "none", 0}))), "create pod");
    const json status = {{"apiVersion", "bot-bottle.dev/v1alpha1"}, {"kind", "Bottle"}, {"metadata", {{"name", name}}},
                         {"status", {{"observedGeneration", 1}, {"conditions", json::array({{{"type", "Ready"}, {"status", "False"}, {"reason", "Starting"},
                                                                                          {"message", ""}, {"lastTransitionTime", format_rfc3339(std::time(nullptr))}}})}}}};
    require(c.call({.method = "PATCH", .path = kube::object_path(kube::kBottles, ns, name, "status", {{"fieldManager", "bottle-bench"}, {"force", "true"}}),
                    .body = status.dump(), .content_type = std::string(kube::kApply)}), "write status");
  });
  return since(start);
}

class Controller {
 public:
  Controller(std::string binary, std::string kubeconfig, std::string ns, std::string log)
      : binary_(std::move(binary)), kubeconfig_(std::move(kubeconfig)), ns_(std::move(ns)), log_(std::move(log)) {}
  ~Controller() { stop(SIGKILL); }
  void start() {
    pid_ = fork();
    if (pid_ == 0) {
      const int fd = open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      dup2(fd, 1);
      dup2(fd, 2);
      execl(binary_.c_str(), binary_.c_str(), "--kubeconfig", kubeconfig_.c_str(), "--watch-namespace", ns_.c_str(), "--leader-elect=false",
            "--metrics-bind-address", "127.0.0.1:18080", "--probe-bind-address", "127.0.0.1:18081", static_cast<char*>(nullptr));
      _exit(127);
    }
    const auto begin = Clock::now();
    while (get("http://127.0.0.1:18081/readyz") != 200) {
      if (waitpid(pid_, nullptr, WNOHANG) == pid_) die("the controller ended; see " + log_);
      if (since(begin) > 180) die("the controller is not ready after 180 s; see " + log_);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  void stop(int signal) {
    if (pid_ <= 0) return;
    kill(pid_, signal);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  double cpu_s() const {
    std::ifstream in("/proc/" + std::to_string(pid_) + "/stat");
    std::string all((std::istreambuf_iterator<char>(in)), {});
    std::istringstream rest(all.substr(all.rfind(')') + 2));
    std::string skip;
    for (int i = 0; i < 11; ++i) rest >> skip;
    long user = 0, system = 0;
    rest >> user >> system;
    return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  double rss_mib() const {
    std::ifstream in("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(in, line);)
      if (line.rfind("VmRSS:", 0) == 0) return std::strtod(line.c_str() + 6, nullptr) / 1024;
    return 0;
  }
  // Sum over the series of `name` whose labels contain `part`.
  double metric(const std::string& name, const std::string& part = "") {
    std::string body;
    get("http://127.0.0.1:18080/metrics", &body);
    std::istringstream in(body);
    double sum = 0;
    for (std::string line; std::getline(in, line);) {
      if (line.rfind(name, 0) != 0 || (line[name.size()] != '{' && line[name.size()] != ' ')) continue;
      if (part.empty() || line.find(part) != std::string::npos) sum += std::strtod(line.c_str() + line.rfind(' '), nullptr);
    }
    return sum;
  }
  double writes() {
    return metric("rest_client_requests_total", "method=\"POST\"") + metric("rest_client_requests_total", "method=\"PATCH\"") +
           metric("rest_client_requests_total", "method=\"PUT\"") + metric("rest_client_requests_total", "method=\"DELETE\"");
  }
  double reconciles() { return metric("controller_runtime_reconcile_total"); }

 private:
  static long get(const std::string& url, std::string* body = nullptr) {
    CURL* c = curl_easy_init();
    std::string text;
    curl_easy_setopt(c, CURLOPT_URL, url.c_str());
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, 5000L);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &text);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, +[](char* p, size_t, size_t n, void* to) { static_cast<std::string*>(to)->append(p, n); return n; });
    long code = 0;
    if (curl_easy_perform(c) == CURLE_OK) curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_cleanup(c);
    if (body) *body = std::move(text);
    return code;
  }
  std::string binary_, kubeconfig_, ns_, log_;
  pid_t pid_ = -1;
};

// Follows one collection and calls back for every event, with the time.
class Follower {
 public:
  Follower(kube::Client& c, const kube::Resource& r, const std::string& ns, std::function<void(const kube::Decoder::Event&, Clock::time_point)> each)
      : each_(std::move(each)) {
    stream_ = c.stream({.method = "GET", .path = kube::collection_path(r, ns, {{"watch", "1"}, {"timeoutSeconds", "3600"}}), .body = {}, .content_type = {}}, std::chrono::milliseconds(0),
                       [this](std::string_view bytes) {
                         rest_.append(bytes);
                         size_t from = 0;
                         for (size_t nl; (nl = rest_.find('\n', from)) != std::string::npos; from = nl + 1) {
                           kube::Decoder::Event event{};
                           if (decoder_.event(std::string_view(rest_).substr(from, nl - from), &event)) each_(event, Clock::now());
                         }
                         rest_.erase(0, from);
                         return true;
                       },
                       [](kube::Answer) {});
  }
  ~Follower() { stream_->close(); }

 private:
  kube::Decoder decoder_;
  std::string rest_;
  std::function<void(const kube::Decoder::Event&, Clock::time_point)> each_;
  std::shared_ptr<kube::Stream> stream_;
};

std::string flag(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 2; i + 1 < argc; i += 2)
    if (argv[i] == name) return argv[i + 1];
  return otherwise;
}

int controller_mode(int argc, char** argv) {
  const std::string kubeconfig = flag(argc, argv, "--kubeconfig", ""), log = flag(argc, argv, "--log", "/dev/null");
  const int n = std::atoi(flag(argc, argv, "--bottles", "1000").c_str()), workers = 16;
  const double status_delay = 3;  // ReconcilerOptions: without a kubelet no bottle becomes Ready, so each status comes this late on purpose
  auto client = connect(kubeconfig);
  ensure_namespace(*client, "bench-raw");
  ensure_namespace(*client, "bench");

  int objects = 0;
  std::cout << "raw loop: " << n << " launches, " << workers << " at once" << std::endl;
  const double raw_s = raw_loop(*client, "bench-raw", n, workers, &objects);
  std::cout << "  " << n / raw_s << " launches/s" << std::endl;

  Controller controller(flag(argc, argv, "--controller", ""), kubeconfig, "bench", log);
  controller.start();
  std::map<int, double> rss{{0, controller.rss_mib()}};

  std::mutex mutex;
  std::map<std::string, Clock::time_point> applied;
  std::vector<double> to_pod;
  std::atomic<int> pods{0}, statuses{0};
  std::map<std::string, bool> told;
  Clock::time_point last_status;
  kube::Decoder pod_decoder, bottle_decoder;
  Follower pod_watch(*client, kube::kPods, "bench", [&](const auto& e, auto when) {
    kube::PodObject pod;
    if (e.type != kube::Decoder::Event::Type::kAdded || !pod_decoder.pod(e.object, &pod)) return;
    const std::lock_guard lock(mutex);
    if (auto it = applied.find(pod.name); it != applied.end()) to_pod.push_back(std::chrono::duration<double>(when - it->second).count());
    ++pods;
  });
  Follower bottle_watch(*client, kube::kBottles, "bench", [&](const auto& e, auto when) {
    kube::BottleObject bottle;
    if (!bottle_decoder.bottle(e.object, &bottle) || bottle.status_json.find("conditions") == std::string::npos) return;
    const std::lock_guard lock(mutex);
    if (told.emplace(bottle.name, true).second) ++statuses, last_status = when;
  });

  int made = 0;
  const auto add = [&](int total) {
    const int from = made;
    parallel(total - from, workers, [&](int i) {
      const std::string name = "b-" + std::to_string(from + i);
      {
        const std::lock_guard lock(mutex);
        applied[name] = Clock::now();
      }
      require(client->call(post(kube::kBottles, "bench", bottle_json("bench", name))), "create bottle");
    });
    made = total;
  };
  std::cout << "controller: the same launches" << std::endl;
  const double cpu0 = controller.cpu_s(), writes0 = controller.writes(), reconciles0 = controller.reconciles();
  const auto start = Clock::now();
  add(n);
  wait_for([&] { return statuses >= n && pods >= n; }, 600, "pods and statuses of all bottles");
  const double ours_s = std::chrono::duration<double>(last_status - start).count() - status_delay;
  const double cpu = controller.cpu_s() - cpu0, writes = controller.writes() - writes0, reconciles = controller.reconciles() - reconciles0;
  const std::vector<double> latency = to_pod;
  std::cout << "  " << n / ours_s << " launches/s" << std::endl;

  double restart_s = 0;
  std::istringstream sizes(flag(argc, argv, "--sizes", "1000,5000,10000"));
  for (std::string item; std::getline(sizes, item, ',');) {
    const int size = std::atoi(item.c_str());
    if (size > made) add(size);
    wait_for([&] { return statuses >= made && pods >= made; }, 1200, "pods of " + item + " bottles");
    rss[size] = controller.rss_mib();
    std::cout << "  " << size << " bottles: RSS " << rss[size] << " MiB" << std::endl;
    if (size == 5000 || (restart_s == 0 && size == n)) {
      controller.stop(SIGKILL);
      const auto again = Clock::now();
      controller.start();
      wait_for([&] { return controller.reconciles() >= size && controller.metric("workqueue_depth") == 0; }, 600, "restart at " + item);
      restart_s = since(again);
      std::cout << "  restart to converged at " << size << ": " << restart_s << " s, writes " << controller.writes() << std::endl;
    }
  }
  json out = {{"bench", "controller"}, {"cores", std::thread::hardware_concurrency()}, {"bottles", n}, {"workers", workers},
              {"raw_per_s", n / raw_s}, {"ours_per_s", n / ours_s}, {"ratio_to_raw", raw_s / ours_s},
              {"objects_per_launch", objects - 1}, {"writes_per_launch", writes / n}, {"reconciles_per_launch", reconciles / n},
              {"cpu_ms_per_bottle", 1000 * cpu / n}, {"restart_s_5000", restart_s},
              {"apply_to_pod_p50_s", percentile(latency, 0.5)}, {"apply_to_pod_p99_s", percentile(latency, 0.99)}};
  for (const auto& [size, mib] : rss) out["rss_mib_" + std::to_string(size)] = mib;
  std::cout << out.dump() << std::endl;
  return 0;
}

bool is_ready(const kube::BottleObject& b) {
  const json status = json::parse(b.status_json, nullptr, false);
  if (!status.is_object() || status.value("observedGeneration", int64_t{0}) != b.generation) return false;
  for (const auto& c : status.value("conditions", json::array()))
    if (c.value("type", "") == "Ready") return c.value("status", "") == "True";
  return false;
}

int start_mode(int argc, char** argv) {
  const std::string ns = "bench-start";
  const int rounds = std::atoi(flag(argc, argv, "--rounds", "5").c_str()), changes = std::atoi(flag(argc, argv, "--changes", "50").c_str());
  auto client = connect(flag(argc, argv, "--kubeconfig", ""));
  ensure_namespace(*client, ns);
  std::mutex mutex;
  std::map<std::string, int64_t> ready_generation;  // by bottle
  std::map<std::string, bool> pod_ready;
  kube::Decoder bottle_decoder, pod_decoder;
  Follower bottles(*client, kube::kBottles, ns, [&](const auto& e, auto) {
    kube::BottleObject b;
    if (!bottle_decoder.bottle(e.object, &b)) return;
    const std::lock_guard lock(mutex);
    if (e.type == kube::Decoder::Event::Type::kDeleted) ready_generation.erase(b.name);
    else if (is_ready(b)) ready_generation[b.name] = b.generation;
  });
  Follower pods(*client, kube::kPods, ns, [&](const auto& e, auto) {
    kube::PodObject p;
    if (!pod_decoder.pod(e.object, &p)) return;
    const std::lock_guard lock(mutex);
    if (e.type == kube::Decoder::Event::Type::kDeleted) pod_ready.erase(p.name);
    else pod_ready[p.name] = p.condition("Ready") && p.condition("Ready")->status == "True";
  });
  const auto locked = [&](const std::function<bool()>& f) { const std::lock_guard lock(mutex); return f(); };
  const auto remove = [&](const kube::Resource& r, const std::string& name) {
    require(client->call({.method = "DELETE", .path = kube::object_path(r, ns, name), .body = {}, .content_type = {}}), "delete " + name);
    wait_for([&] { return locked([&] { return !pod_ready.contains(name); }); }, 60, "pod gone: " + name);
  };
  std::vector<double> ups, downs, bare;
  for (int i = -1; i < rounds; ++i) {  // the first is not counted
    json bottle = bottle_json(ns, "start");
    bottle["spec"].erase("pki");  // the default engine's own key type, as a user gets it
    auto t = Clock::now();
    require(client->call(post(kube::kBottles, ns, bottle)), "create bottle");
    wait_for([&] { return locked([&] { return ready_generation.contains("start"); }); }, 120, "bottle Ready");
    const double up = since(t);
    t = Clock::now();
    remove(kube::kBottles, "start");
    const double down = since(t);
    const json pod = {{"apiVersion", "v1"}, {"kind", "Pod"}, {"metadata", {{"name", "bare"}}},
                      {"spec", {{"terminationGracePeriodSeconds", 0}, {"containers", json::array({{{"name", "agent"}, {"image", "bot-bottle/agent:latest"}, {"imagePullPolicy", "IfNotPresent"}, {"command", {"sleep", "infinity"}}}})}}}};
    t = Clock::now();
    require(client->call(post(kube::kPods, ns, pod)), "create pod");
    wait_for([&] { return locked([&] { return pod_ready["bare"]; }); }, 60, "bare pod Ready");
    const double alone = since(t);
    remove(kube::kPods, "bare");
    if (i >= 0) ups.push_back(up), downs.push_back(down), bare.push_back(alone);
    std::cout << "apply to Ready " << up << " s, delete to gone " << down << " s, a bare pod " << alone << " s" << std::endl;
  }
  require(client->call(post(kube::kBottles, ns, bottle_json(ns, "policy"))), "create bottle");
  wait_for([&] { return locked([&] { return ready_generation.contains("policy"); }); }, 120, "bottle Ready");
  std::vector<double> pushes;
  for (int i = 0; i < changes; ++i) {
    json routes = bottle_json(ns, "policy")["spec"]["egress"]["routes"];
    routes[0]["paths"] = {"/v" + std::to_string(i + 2) + "/"};
    const auto t = Clock::now();
    const auto a = client->call({.method = "PATCH", .path = kube::object_path(kube::kBottles, ns, "policy", "", {{"fieldManager", "bottle-bench"}}),
                                 .body = json{{"spec", {{"egress", {{"routes", routes}}}}}}.dump(), .content_type = std::string(kube::kMergePatch)});
    require(a, "change the policy");
    const int64_t generation = json::parse(a.body)["metadata"]["generation"];
    wait_for([&] { return locked([&] { return ready_generation["policy"] >= generation; }); }, 60, "policy enforced");
    pushes.push_back(since(t));
  }
  remove(kube::kBottles, "policy");
  const json out = {{"bench", "start"}, {"cluster_ready_s", percentile(ups, 0.5)}, {"cluster_down_s", percentile(downs, 0.5)}, {"bare_pod_ready_s", percentile(bare, 0.5)},
                    {"cluster_ready_vs_bare_pod", percentile(ups, 0.5) / percentile(bare, 0.5)}, {"policy_p50_s", percentile(pushes, 0.5)}, {"policy_p99_s", percentile(pushes, 0.99)},
                    {"policy_changes", pushes.size()}};
  std::cout << out.dump() << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  curl_global_init(CURL_GLOBAL_DEFAULT);
  if (mode == "controller") return controller_mode(argc, argv);
  if (mode == "start") return start_mode(argc, argv);
  std::cerr << "usage: bottle-bench-cluster controller|start --kubeconfig FILE [--controller BIN] [--bottles N] [--sizes N,N] [--rounds N] [--changes N]\n";
  return 2;
}
