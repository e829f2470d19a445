// Taking away: only what carries our labels and belongs to this state folder, and always by id,
// never by name.
#include <set>
#include <thread>

#include "backends/docker/docker_impl.h"
#include "base/file.h"

namespace bottle::docker {
namespace {

std::string label(const Json& object, const char* key) {
  Json labels = object.value("Labels", Json::object());
  return labels.is_object() && labels.contains(key) && labels[key].is_string()
             ? labels[key].get<std::string>()
             : "";
}

std::string first_name(const Json& container) {
  std::string name = text_at(container, "/Names/0");
  return name.empty() ? text_at(container, "/Id").substr(0, 12)
                      : name.substr(name[0] == '/' ? 1 : 0);
}

bool gone(const Status& s) { return s.is_ok() || s.code() == Code::kNotFound; }

}  // namespace

bool DockerBackend::ours(const Json& labels, const std::string& slug) const {
  if (!labels.is_object()) return false;
  auto is = [&](const char* key, const std::string& value) {
    return labels.contains(key) && labels[key].is_string() &&
           labels[key].get<std::string>() == value;
  };
  return is(kLabelManaged, "true") && is(kLabelSlug, slug) && is(kLabelState, state_.root());
}

Result<std::vector<Json>> DockerBackend::containers_of(const std::string& slug) const {
  Json labels = {std::string(kLabelManaged) + "=true",
                 std::string(kLabelState) + "=" + state_.root()};
  if (!slug.empty()) labels.push_back(std::string(kLabelSlug) + "=" + slug);
  std::string query = filters_query(Json{{"label", labels}});
  auto all = engine_.call("GET", "/containers/json" + query + "&all=1");
  if (!all) return all.status();
  std::vector<Json> out;
  for (auto& c : *all)  // the filter is the engine's; what we delete we check ourselves
    if (ours(c.value("Labels", Json::object()), slug.empty() ? label(c, kLabelSlug) : slug))
      out.push_back(c);
  return out;
}

Status DockerBackend::remove_container(const std::string& id, const std::string& slug) const {
  auto now = engine_.call("GET", "/containers/" + id + "/json");
  if (!now) return gone(now.status()) ? Status::ok() : now.status();
  if (!ours(now->value("Config", Json::object()).value("Labels", Json::object()), slug))
    return Status(Code::kConflict, "container " + id.substr(0, 12) + " is not ours: not removed");
  Status s = engine_.call("DELETE", "/containers/" + id + "?force=1&v=1").status();
  // 409: somebody else is removing it at this moment. Wait for the end of that.
  for (int i = 0; s.code() == Code::kConflict && i < 100; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    now = engine_.call("GET", "/containers/" + id + "/json");
    if (!now) return gone(now.status()) ? Status::ok() : now.status();
  }
  return gone(s) ? Status::ok() : s;
}

Status DockerBackend::remove_containers(const std::string& slug, const Progress& progress) const {
  auto all = containers_of(slug);
  if (!all) return all.status();
  // The agent first: it must not see the others go. Then egress, the guard and whatever was run
  // once.
  for (const char* role : {"agent", "egress", ""})
    for (const auto& c : *all) {
      std::string is = label(c, kLabelRole);
      if (*role ? is != role : is == "agent" || is == "egress") continue;
      if (progress) progress("remove", first_name(c));
      if (auto s = remove_container(text_at(c, "/Id"), slug); !s)
        return s.with_context("remove " + first_name(c));
    }
  return Status::ok();
}

Status DockerBackend::remove_network(const std::string& slug) const {
  auto found = engine_.call("GET", "/networks/" + network_name(slug));
  if (!found) return gone(found.status()) ? Status::ok() : found.status();
  if (!ours(found->value("Labels", Json::object()), slug)) return Status::ok();
  Status s = engine_.call("DELETE", "/networks/" + text_at(*found, "/Id")).status();
  return gone(s) ? Status::ok() : s.with_context("remove network " + network_name(slug));
}

void DockerBackend::stop_all(const BottleState& state) const {
  for (const std::string& id : {state.agent_id, state.egress_id, state.guard_id})
    if (!id.empty()) (void)engine_.call("POST", "/containers/" + id + "/kill");
}

Status DockerBackend::remove(const std::string& name, const Progress& progress) {
  const std::string slug = slug_of(name);
  auto lock = state_.lock(slug);
  if (!lock) return lock.status();
  auto state = state_.load(slug);
  auto all = containers_of(slug);
  if (!all) return all.status();
  if (!state && state.status().code() == Code::kNotFound && all->empty()) {
    auto network = engine_.call("GET", "/networks/" + network_name(slug));
    if (!network || !ours(network->value("Labels", Json::object()), slug))
      return Status(Code::kNotFound,
                    "there is no bottle '" + name + "'; bottle ls shows those there are");
  }
  if (auto s = remove_containers(slug, progress); !s) return s;
  if (progress) progress("remove", network_name(slug));
  if (auto s = remove_network(slug); !s) return s;
  auto volume = engine_.call("GET", "/volumes/" + workspace_volume(slug));
  if (volume && ours(volume->value("Labels", Json::object()), slug))
    if (Status s = engine_.call("DELETE", "/volumes/" + workspace_volume(slug)).status(); !gone(s))
      return s;
  return state_.remove(slug);
}

Result<CleanupReport> DockerBackend::cleanup(bool dry_run) {
  CleanupReport report;
  auto all = containers_of("");
  if (!all) return all.status();
  // `known`: bottles that were ready once. They and their workspaces go by `down` alone, whatever
  // became of their containers.
  std::set<std::string> expected, known, busy;
  std::vector<StateDir::Lock> locks;
  std::set<std::string> slugs;
  for (const auto& slug : state_.slugs()) slugs.insert(slug);
  for (const auto& c : *all) slugs.insert(label(c, kLabelSlug));
  auto networks = engine_.call(
      "GET", "/networks" +
                 filters_query(Json{{"label", {std::string(kLabelState) + "=" + state_.root()}}}));
  if (!networks) return networks.status();
  auto volumes = engine_.call(
      "GET", "/volumes" +
                 filters_query(Json{{"label", {std::string(kLabelState) + "=" + state_.root()}}}));
  if (!volumes) return volumes.status();
  for (const auto& slug : slugs) {
    auto lock = state_.lock(slug);
    if (!lock) {  // a command is at work on it: none of our business
      busy.insert(slug);
      continue;
    }
    locks.push_back(std::move(*lock));
    auto state = state_.load(slug);
    if (!state || !state->ever_ready) continue;
    known.insert(slug);
    for (const std::string& id :
         {state->guard_id, state->egress_id, state->agent_id, state->network_id})
      expected.insert(id);
  }

  auto take = [&](const std::string& what, auto remove) -> Status {
    if (!dry_run)
      if (Status s = remove(); !gone(s)) return s.with_context("remove " + what);
    report.removed.push_back(what);
    return Status::ok();
  };
  for (const auto& c : *all) {
    std::string id = text_at(c, "/Id"), slug = label(c, kLabelSlug);
    if (busy.count(slug) || expected.count(id)) continue;
    if (auto s = take("container " + first_name(c), [&] { return remove_container(id, slug); }); !s)
      return s;
  }
  for (const auto& n : *networks) {
    std::string slug = label(n, kLabelSlug), id = text_at(n, "/Id");
    if (busy.count(slug) || expected.count(id) || !ours(n.value("Labels", Json::object()), slug))
      continue;
    if (auto s = take("network " + text_at(n, "/Name"),
                      [&] { return engine_.call("DELETE", "/networks/" + id).status(); });
        !s)
      return s;
  }
  if (volumes->contains("Volumes") && (*volumes)["Volumes"].is_array())
    for (const auto& v : (*volumes)["Volumes"]) {
      std::string slug = label(v, kLabelSlug), name = text_at(v, "/Name");
      if (busy.count(slug) || known.count(slug) || !ours(v.value("Labels", Json::object()), slug))
        continue;
      if (auto s = take("volume " + name,
                        [&] { return engine_.call("DELETE", "/volumes/" + name).status(); });
          !s)
        return s;
    }
  for (const auto& slug : state_.slugs()) {
    if (busy.count(slug) || known.count(slug)) continue;
    if (auto s = take("state " + slug, [&] { return state_.remove(slug); }); !s) return s;
  }
  return report;
}

}  // namespace bottle::docker
