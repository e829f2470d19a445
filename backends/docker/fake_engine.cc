#include "backends/docker/fake_engine.h"

#include <httplib.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "backends/docker/archive.h"
#include "backends/docker/container_body.h"

namespace bottle::docker {
namespace {

using namespace nlohmann::literals;

std::string frame(const std::string& text) {
  std::string head("\1\0\0\0\0\0\0\0", 8);
  for (int i = 0; i < 4; ++i) head[7 - i] = static_cast<char>(text.size() >> (8 * i) & 255);
  return text.empty() ? "" : head + text;
}

std::string tar_file(const std::string& content) {
  std::string tar = tar_folder("f", 0644, 0, 0).substr(0, 512);
  tar[156] = '0';
  char size[12];
  std::snprintf(size, sizeof size, "%011zo", content.size());
  tar.replace(124, 11, size);
  tar += content;
  tar.resize((tar.size() + 511) / 512 * 512 + 1024, '\0');
  return tar;
}

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string mount_source(const Json& body, const std::string& target) {
  Json mounts = body.value("/HostConfig/Mounts"_json_pointer, Json::array());
  for (const auto& m : mounts)
    if (m.value("Target", "") == target) return m.value("Source", "");
  return "";
}

std::string label_of(const Json& body, const char* key) {
  return body.value("Labels", Json::object()).value(key, "");
}

}  // namespace

FakeEngine::FakeEngine(std::string socket) : server_(std::make_unique<httplib::Server>()) {
  auto handler = [this](const httplib::Request& q, httplib::Response& r) { handle(q, r); };
  server_->Get(".*", handler).Post(".*", handler).Put(".*", handler).Delete(".*", handler);
  server_->set_address_family(AF_UNIX);
  server_->set_keep_alive_timeout(1);
  server_->bind_to_port(socket, 80);
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  while (!server_->is_running()) std::this_thread::yield();
  egress_ = std::jthread([this](std::stop_token stop) {  // what watches its folders, as egress does
    while (!stop.stop_requested()) {
      {
        std::lock_guard lock(mutex_);
        for (auto& [name, c] : containers_)
          if (c.running && label_of(c.body, kLabelRole) == "egress" && !scripts_.count("egress"))
            report_egress(c);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
}

FakeEngine::~FakeEngine() {
  egress_.request_stop();
  server_->stop();
  thread_.join();
}

void FakeEngine::fail(const std::string& what, int status, const std::string& message) {
  std::lock_guard lock(mutex_);
  faults_.push_back({what, {status, message}});
}
void FakeEngine::script(const std::string& role, const std::string& log, int exit_code) {
  std::lock_guard lock(mutex_);
  scripts_[role] = {log, exit_code};
}
void FakeEngine::add_image(const std::string& name, const Json& config) {
  std::lock_guard lock(mutex_);
  std::string id = name;
  std::replace(id.begin(), id.end(), '/', '-');
  images_[name] = {{"Id", "sha256:" + id}, {"Config", config}};
}
void FakeEngine::remove_image(const std::string& name) {
  std::lock_guard lock(mutex_);
  images_.erase(name);
}
std::string FakeEngine::add_container(const std::string& name, const Json& body, bool running) {
  std::lock_guard lock(mutex_);
  Container c;
  c.id = "id" + std::to_string(next_id_++) + "-" + name, c.name = name, c.body = body,
  c.running = running;
  containers_[name] = c;
  return c.id;
}
std::string FakeEngine::add_network(const std::string& name, const Json& labels) {
  std::lock_guard lock(mutex_);
  std::string id = "net" + std::to_string(next_id_++);
  networks_[name] = {{"Id", id}, {"Name", name}, {"Labels", labels}};
  return id;
}
void FakeEngine::set_pull_answer(const std::string& lines) {
  std::lock_guard lock(mutex_);
  pull_answer_ = lines;
}
void FakeEngine::kill(const std::string& name) {
  std::lock_guard lock(mutex_);
  containers_.at(name).running = false;
}
void FakeEngine::restart(const std::string& name) {
  std::lock_guard lock(mutex_);
  ++containers_.at(name).starts;
}

std::vector<std::string> FakeEngine::calls() const {
  std::lock_guard lock(mutex_);
  return calls_;
}
std::vector<std::string> FakeEngine::starts() const {
  std::lock_guard lock(mutex_);
  return starts_;
}
std::string FakeEngine::all_bodies() const {
  std::lock_guard lock(mutex_);
  return bodies_;
}
std::map<std::string, FakeEngine::Container> FakeEngine::containers() const {
  std::lock_guard lock(mutex_);
  return containers_;
}
Json FakeEngine::networks() const {
  std::lock_guard lock(mutex_);
  return networks_;
}

FakeEngine::Container* FakeEngine::find(const std::string& key) {
  for (auto& [name, c] : containers_)
    if (name == key || c.id == key) return &c;
  return nullptr;
}

Json FakeEngine::inspect(const Container& c) {
  Json j = {{"Id", c.id},
            {"Name", "/" + c.name},
            {"Image", "sha256:x"},
            {"Config", c.body},
            {"HostConfig", c.body.value("HostConfig", Json::object())},
            {"RestartCount", 0}};
  j["State"] = {{"Running", c.running},
                {"Status", c.running  ? "running"
                           : c.starts ? "exited"
                                      : "created"},
                {"ExitCode", c.exit_code},
                {"StartedAt", "start-" + std::to_string(c.starts)},
                {"FinishedAt", ""}};
  return j;
}

// As egress does: reports the hash of the routes that are mounted.
void FakeEngine::report_egress(const Container& c) {
  std::string routes = read_text(mount_source(c.body, "/etc/bot-bottle/policy") + "/routes.yaml"),
              hash;
  if (auto at = routes.find("sha256:"); at != std::string::npos) hash = routes.substr(at, 71);
  std::string path = mount_source(c.body, "/run/bot-bottle") + "/status.json";
  std::ofstream(path + ".new") << Json{
      {"policyHash", hash},
      {"ready", true},
      {"error", nullptr},
      {"tokens", Json::object()},
      {"generation", ++generation_}}.dump();
  std::rename((path + ".new").c_str(), path.c_str());
}

void FakeEngine::start(Container& c) {
  std::string role = label_of(c.body, kLabelRole);
  starts_.push_back(role);
  ++c.starts;
  c.running = true;
  if (role == "guard") c.log = "{\"guard\":\"verified\",\"rulesSha256\":\"x\"}\n";
  if (role == "guard-counters") c.log = "{\"refused\":{\"packets\":1}}\n", c.running = false;
  if (role == "guard-apply") c.log = "{\"guard\":\"verified\"}\n", c.running = false;
  auto script = scripts_.find(role);
  if (script != scripts_.end()) {
    c.log = script->second.first;
    if (script->second.second >= 0) c.running = false, c.exit_code = script->second.second;
  } else if (role == "egress") {
    report_egress(c);
  }
}

void FakeEngine::handle(const httplib::Request& q, httplib::Response& r) {
  std::lock_guard lock(mutex_);
  r.set_header("Api-Version", "1.41");
  std::string path = q.path.rfind("/v1.41", 0) == 0 ? q.path.substr(6) : q.path;
  std::string line = q.method + " " + path;
  for (const auto& [key, value] : q.params)
    line += (line.find('?') == std::string::npos ? "?" : "&") + key + "=" + value;
  calls_.push_back(line);
  bodies_ += line + "\n" + q.body + "\n";
  for (auto& [what, fault] : faults_)
    if (fault.times > 0 && line.find(what) != std::string::npos) {
      --fault.times;
      r.status = fault.status;
      r.set_content(Json{{"message", fault.message}}.dump(), "application/json");
      return;
    }
  answer(q.method, path, q, r);
}

void FakeEngine::answer(const std::string& method, const std::string& path,
                        const httplib::Request& q, httplib::Response& r) {
  auto json = [&](const Json& j, int status = 200) {
    r.status = status;
    r.set_content(j.dump(), "application/json");
  };
  auto missing = [&](const std::string& what) { json({{"message", "No such " + what}}, 404); };
  auto under = [&](const std::string& prefix) { return path.rfind(prefix, 0) == 0; };
  std::string rest =
      path.substr(path.find('/', 1) == std::string::npos ? path.size() : path.find('/', 1) + 1);
  std::string key = rest.substr(0, rest.find('/')),
              verb = rest.find('/') == std::string::npos ? "" : rest.substr(rest.find('/') + 1);
  if (path == "/_ping") return json("OK");
  if (path == "/info")
    return json({{"InitBinary", "docker-init"}, {"SecurityOptions", {"name=seccomp"}}});
  if (under("/images/create")) return r.set_content(pull_answer_, "application/json");
  if (under("/images/")) {
    std::string name = rest.substr(0, rest.rfind('/'));
    return images_.count(name) ? json(images_[name]) : missing("image");
  }
  if (path == "/containers/json") {
    Json all = Json::array();
    for (auto& [name, c] : containers_)
      all.push_back({{"Id", c.id},
                     {"Names", {"/" + name}},
                     {"Labels", c.body.value("Labels", Json::object())}});
    return json(all);
  }
  if (path == "/containers/create") {
    std::string name = q.get_param_value("name");
    if (containers_.count(name))
      return json({{"message", "Conflict. The container name is already in use"}}, 409);
    Container c;
    c.id = "id" + std::to_string(next_id_++) + "-" + name, c.name = name,
    c.body = Json::parse(q.body);
    containers_[name] = c;
    return json({{"Id", c.id}}, 201);
  }
  if (under("/containers/")) {
    Container* c = find(key);
    if (!c) return missing("container");
    if (method == "DELETE") {
      containers_.erase(c->name);
      r.status = 204;
    } else if (verb == "json") {
      json(inspect(*c));
    } else if (verb == "start") {
      start(*c);
      r.status = 204;
    } else if (verb == "kill") {
      c->running = false;
      r.status = 204;
    } else if (verb == "logs") {
      r.set_content(frame(c->log), "application/octet-stream");
    } else if (verb == "wait") {
      json({{"StatusCode", c->exit_code}});
    } else if (verb == "archive" && method == "GET") {
      bool roots = q.get_param_value("path").find("ca-certificates") != std::string::npos;
      r.set_content(tar_file(roots ? read_text("/etc/ssl/certs/ca-certificates.crt") : "the gate"),
                    "application/x-tar");
    }
    return;
  }
  auto& store = under("/networks") ? networks_ : volumes_;
  if (key == "create") {
    Json body = Json::parse(q.body);
    std::string name = body["Name"];
    store[name] = {
        {"Name", name}, {"Id", "net" + std::to_string(next_id_++)}, {"Labels", body["Labels"]}};
    return json(store[name], 201);
  }
  if (key.empty()) {
    Json all = Json::array();
    for (auto& [name, v] : store) all.push_back(v);
    return json(under("/networks") ? all : Json{{"Volumes", all}});
  }
  for (auto& [name, v] : store)
    if (name == key || v["Id"] == key) {
      if (method != "DELETE") return json(v);
      store.erase(name);
      r.status = 204;
      return;
    }
  missing("network or volume");
}

}  // namespace bottle::docker
