// JSON of the API server -> the structs of objects.h, with simdjson's on-demand parser: what is not asked for is passed over.
// Source: simdjson doc/ondemand.md; Kubernetes API reference (ObjectMeta, PodStatus, NetworkPolicySpec, WatchEvent).
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/rfc3339.h"
#include "controller/kube/json_slice.h"
#include "controller/kube/objects.h"

namespace bottle::kube {
namespace {

namespace od = simdjson::ondemand;
using simdjson::error_code;
using simdjson::SUCCESS;

// Everything here is written by somebody else: what is kept of it has a bound.
constexpr size_t kMaxName = 253;         // RFC 1123 subdomain; nothing that identifies is ever longer
constexpr size_t kMaxMessage = 1024;
constexpr size_t kMaxAnnotation = 4096;
constexpr size_t kMaxAnnotations = 64, kMaxContainers = 128, kMaxConditions = 64, kMaxRequirements = 256, kMaxValues = 256;
constexpr size_t kMaxObject = 8u << 20;  // = the longest line of a watch; the server's own bound is 1.5 MB
constexpr size_t kKeepScratch = 1u << 20;

// Calls each(key, value) -> error_code for every field; null counts as absent. A null instead of the object: no fields.
template <class F>
error_code each_field(od::value value, F each) {
  od::json_type type;
  if (auto e = value.type().get(type)) return e;
  if (type == od::json_type::null) return SUCCESS;
  od::object object;
  if (auto e = value.get_object().get(object)) return e;
  for (auto item : object) {
    od::field field;
    if (auto e = std::move(item).get(field)) return e;
    std::string_view key;
    if (auto e = field.unescaped_key().get(key)) return e;
    od::value v = field.value();
    if (auto e = v.type().get(type)) return e;
    if (type == od::json_type::null) continue;
    if (auto e = each(key, v)) return e;
  }
  return SUCCESS;
}

template <class F>
error_code each_element(od::value value, F each) {
  od::json_type type;
  if (auto e = value.type().get(type)) return e;
  if (type == od::json_type::null) return SUCCESS;
  od::array array;
  if (auto e = value.get_array().get(array)) return e;
  for (auto item : array) {
    od::value v;
    if (auto e = std::move(item).get(v)) return e;
    if (auto e = each(v)) return e;
  }
  return SUCCESS;
}

error_code text(od::value value, std::string_view* out) { return value.get_string().get(*out); }

// Names, uids, versions: longer than any can be is no such object.
error_code name(od::value value, std::string* out) {
  std::string_view s;
  if (auto e = text(value, &s)) return e;
  if (s.size() > kMaxName) return simdjson::CAPACITY;
  *out = s;
  return SUCCESS;
}

// Words for people: cut, between characters.
error_code message(od::value value, std::string* out) {
  std::string_view s;
  if (auto e = text(value, &s)) return e;
  size_t n = std::min(s.size(), kMaxMessage);
  if (n < s.size()) while (n > 0 && (static_cast<unsigned char>(s[n]) & 0xC0) == 0x80) --n;
  *out = s.substr(0, n);
  return SUCCESS;
}

error_code number(od::value value, int64_t* out) { return value.get_int64().get(*out); }
error_code number(od::value value, int* out) {
  int64_t n = 0;
  if (auto e = number(value, &n)) return e;
  *out = static_cast<int>(std::clamp<int64_t>(n, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()));
  return SUCCESS;
}
error_code boolean(od::value value, bool* out) { return value.get_bool().get(*out); }
error_code time(od::value value, int64_t* out) {
  std::string_view s;
  if (auto e = text(value, &s)) return e;
  *out = parse_rfc3339(s);
  return SUCCESS;
}

bool in_our_group(std::string_view api_version) { return api_version.substr(0, api_version.find('/')) == "bot-bottle.dev"; }

error_code owners(od::value value, ObjectMeta* out) {
  return each_element(value, [&](od::value element) {
    bool controller = false;
    std::string api_version, kind, owner, uid;
    auto e = each_field(element, [&](std::string_view key, od::value v) -> error_code {
      if (key == "controller") return boolean(v, &controller);
      if (key == "apiVersion") return name(v, &api_version);
      if (key == "kind") return name(v, &kind);
      if (key == "name") return name(v, &owner);
      if (key == "uid") return name(v, &uid);
      return SUCCESS;
    });
    if (e || !controller) return e;
    if (kind == "Bottle" && in_our_group(api_version)) {
      out->owner_name = std::move(owner);
      out->owner_uid = std::move(uid);
    } else {
      out->owned_by_other = true;
    }
    return e;
  });
}

error_code metadata(od::value value, ObjectMeta* out, bool* managed = nullptr) {
  return each_field(value, [&](std::string_view key, od::value v) -> error_code {
    if (key == "name") return name(v, &out->name);
    if (key == "namespace") return name(v, &out->ns);
    if (key == "uid") return name(v, &out->uid);
    if (key == "resourceVersion") return name(v, &out->resource_version);
    if (key == "generation") return number(v, &out->generation);
    if (key == "creationTimestamp") return time(v, &out->created);
    if (key == "deletionTimestamp") {
      auto e = time(v, &out->deleting);
      // A time that we cannot read is still a deletion.
      if (!e && out->deleting == 0) out->deleting = 1;
      return e;
    }
    if (key == "ownerReferences") return owners(v, out);
    if (key == "annotations") {
      return each_field(v, [&](std::string_view k, od::value a) -> error_code {
        if (k.substr(0, kAnnotationPrefix.size()) != kAnnotationPrefix) return SUCCESS;
        std::string_view s;
        if (auto e = text(a, &s)) return e;
        // None of ours is that long: half a value would be worse than none.
        if (s.size() > kMaxAnnotation || out->annotations.size() >= kMaxAnnotations) return SUCCESS;
        out->annotations.insert_or_assign(std::string(k.substr(kAnnotationPrefix.size())), std::string(s));
        return SUCCESS;
      });
    }
    if (key == "labels" && managed) {
      return each_field(v, [&](std::string_view k, od::value a) -> error_code {
        std::string_view s;
        if (auto e = text(a, &s)) return e;
        if (k == kManagedBy) *managed = s == kFieldManager;
        return SUCCESS;
      });
    }
    return SUCCESS;
  });
}

error_code container_state(od::value value, ContainerState* c) {
  return each_field(value, [&](std::string_view key, od::value state) -> error_code {
    if (key == "running") {
      c->state = ContainerState::State::kRunning;
    } else if (key == "terminated") {
      c->state = ContainerState::State::kTerminated;
    } else if (key == "waiting") {
      c->state = ContainerState::State::kWaiting;
    } else {
      return SUCCESS;
    }
    return each_field(state, [&](std::string_view k, od::value v) -> error_code {
      if (k == "reason") return message(v, &c->reason);
      if (k == "message") return message(v, &c->message);
      if (k == "exitCode") return number(v, &c->exit_code);
      if (k == "startedAt") return time(v, &c->started_at);
      if (k == "finishedAt") return time(v, &c->finished_at);
      return SUCCESS;
    });
  });
}

error_code containers(od::value value, ContainerState::Kind kind, std::vector<ContainerState>* out) {
  return each_element(value, [&](od::value element) -> error_code {
    if (out->size() >= kMaxContainers) return simdjson::CAPACITY;
    ContainerState c;
    c.kind = kind;
    auto e = each_field(element, [&](std::string_view key, od::value v) -> error_code {
      if (key == "name") return name(v, &c.name);
      if (key == "ready") return boolean(v, &c.ready);
      if (key == "started") return boolean(v, &c.started);
      if (key == "restartCount") return number(v, &c.restarts);
      if (key == "state") return container_state(v, &c);
      if (key == "lastState") {
        ContainerState last;
        if (auto err = container_state(v, &last)) return err;
        if (last.state != ContainerState::State::kTerminated) return SUCCESS;
        c.last_reason = std::move(last.reason);
        c.last_exit_code = last.exit_code;
      }
      return SUCCESS;
    });
    if (!e) out->push_back(std::move(c));
    return e;
  });
}

error_code conditions(od::value value, std::vector<PodCondition>* out) {
  return each_element(value, [&](od::value element) -> error_code {
    if (out->size() >= kMaxConditions) return simdjson::CAPACITY;
    PodCondition c;
    auto e = each_field(element, [&](std::string_view key, od::value v) -> error_code {
      if (key == "type") return message(v, &c.type);
      if (key == "status") return name(v, &c.status);
      if (key == "reason") return message(v, &c.reason);
      if (key == "message") return message(v, &c.message);
      return SUCCESS;
    });
    if (!e) out->push_back(std::move(c));
    return e;
  });
}

error_code pod_status(od::value value, PodObject* out) {
  using Kind = ContainerState::Kind;
  return each_field(value, [&](std::string_view key, od::value v) -> error_code {
    if (key == "phase") return name(v, &out->phase);
    if (key == "reason") return message(v, &out->reason);
    if (key == "message") return message(v, &out->message);
    if (key == "podIP") return name(v, &out->ip);
    if (key == "startTime") return time(v, &out->start_time);
    if (key == "conditions") return conditions(v, &out->conditions);
    if (key == "initContainerStatuses") return containers(v, Kind::kInit, &out->containers);
    if (key == "containerStatuses") return containers(v, Kind::kMain, &out->containers);
    if (key == "ephemeralContainerStatuses") return containers(v, Kind::kEphemeral, &out->containers);
    return SUCCESS;
  });
}

error_code pod_spec(od::value value, PodObject* out) {
  return each_field(value, [&](std::string_view key, od::value v) -> error_code {
    if (key == "nodeName") return name(v, &out->node);
    if (key != "ephemeralContainers") return SUCCESS;
    return each_element(v, [&](od::value element) -> error_code {
      if (out->ephemeral.size() >= kMaxContainers) return simdjson::CAPACITY;
      return each_field(element, [&](std::string_view k, od::value n) -> error_code {
        return k == "name" ? name(n, &out->ephemeral.emplace_back()) : SUCCESS;
      });
    });
  });
}

error_code selector(od::value value, std::vector<LabelRequirement>* out) {
  return each_field(value, [&](std::string_view key, od::value v) -> error_code {
    if (key == "matchLabels") {
      return each_field(v, [&](std::string_view label, od::value want) -> error_code {
        if (out->size() >= kMaxRequirements) return simdjson::CAPACITY;
        LabelRequirement r{std::string(label), "In", {""}};
        if (auto e = name(want, &r.values.front())) return e;
        out->push_back(std::move(r));
        return SUCCESS;
      });
    }
    if (key != "matchExpressions") return SUCCESS;
    return each_element(v, [&](od::value element) -> error_code {
      if (out->size() >= kMaxRequirements) return simdjson::CAPACITY;
      LabelRequirement& r = out->emplace_back();
      return each_field(element, [&](std::string_view k, od::value part) -> error_code {
        if (k == "key") return message(part, &r.key);
        if (k == "operator") return name(part, &r.op);
        if (k != "values") return SUCCESS;
        return each_element(part, [&](od::value one) -> error_code {
          if (r.values.size() >= kMaxValues) return simdjson::CAPACITY;
          return name(one, &r.values.emplace_back());
        });
      });
    });
  });
}

error_code network_policy_spec(od::value value, NetworkPolicyObject* out) {
  bool has_types = false, has_section = false, type_egress = false;
  auto e = each_field(value, [&](std::string_view key, od::value v) -> error_code {
    if (key == "podSelector") return selector(v, &out->pod_selector);
    if (key == "policyTypes") {
      return each_element(v, [&](od::value element) -> error_code {
        std::string_view type;
        if (auto err = text(element, &type)) return err;
        has_types = true;
        type_egress |= type == "Egress";
        return SUCCESS;
      });
    }
    if (key == "egress") {
      has_section = true;
      return each_element(v, [&](od::value) -> error_code {
        out->allows_egress = true;
        return SUCCESS;
      });
    }
    return SUCCESS;
  });
  out->affects_egress = has_types ? type_egress : has_section;
  return e;
}

Status invalid(std::string_view what) { return Status(Code::kInvalid, std::string(what)); }

}  // namespace

struct Decoder::Impl {
  od::parser parser;
  std::string buffer;  // simdjson reads up to SIMDJSON_PADDING bytes behind the text, so a slice of a line is copied first

  // Calls each(key, value) for the fields of the object that is all of `json`.
  template <class F>
  Status parse(std::string_view json, std::string_view what, F each) {
    if (json.size() > kMaxObject) return invalid(std::string(what) + " of more than 8 MiB");
    buffer.resize(json.size() + simdjson::SIMDJSON_PADDING);
    std::memcpy(buffer.data(), json.data(), json.size());
    std::memset(buffer.data() + json.size(), 0, simdjson::SIMDJSON_PADDING);
    error_code e;
    {
      od::document document;
      e = parser.iterate(simdjson::padded_string_view(buffer.data(), json.size(), buffer.size())).get(document);
      od::value root;
      if (!e) e = document.get_value().get(root);
      od::json_type type{};
      if (!e) e = root.type().get(type);
      if (!e && type != od::json_type::object) e = simdjson::INCORRECT_TYPE;
      if (!e) e = each_field(root, each);
      // There is a location only while something is left; document.at_end() is younger than the oldest simdjson that we build with.
      const char* left = nullptr;
      if (!e && document.current_location().get(left) == SUCCESS) e = simdjson::TAPE_ERROR;
    }
    if (buffer.size() > kKeepScratch) {  // one huge object must not cost its memory for ever
      parser = od::parser();
      buffer = std::string();
    }
    if (e) return invalid(std::string(what) + " that cannot be read: " + simdjson::error_message(e));
    return Status::ok();
  }

  Status meta(std::string_view json, std::string_view what, ObjectMeta* out) {
    return parse(json, what, [&](std::string_view key, od::value v) -> error_code { return key == "metadata" ? metadata(v, out) : SUCCESS; });
  }
};

namespace {
Status named(const ObjectMeta& meta, std::string_view what) {
  return meta.name.empty() || meta.uid.empty() ? invalid(std::string(what) + " without metadata.name or metadata.uid") : Status::ok();
}
}  // namespace

Decoder::Decoder() : impl_(new Impl) {}
Decoder::~Decoder() { delete impl_; }

Status Decoder::bottle(std::string_view json, BottleObject* out) {
  *out = {};
  if (auto s = impl_->meta(json, "a Bottle", out); !s) return s;
  JsonSlice slice(json);
  std::string_view key, value;
  slice.enter('{');
  while (slice.next_field(&key, &value)) {
    std::string* raw = key == "spec" ? &out->spec_json : key == "status" ? &out->status_json : nullptr;
    if (raw && value != "null" && !compact_json(value, raw)) return invalid("a Bottle whose " + std::string(key) + " is no JSON");
  }
  if (slice.failed() || !slice.at_end()) return invalid("a Bottle whose JSON is broken or too deep");
  return named(*out, "a Bottle");
}

Status Decoder::meta(std::string_view json, MetaObject* out) {
  *out = {};
  if (auto s = impl_->meta(json, "an object", out); !s) return s;
  return named(*out, "an object");
}

Status Decoder::pod(std::string_view json, PodObject* out) {
  *out = {};
  auto s = impl_->parse(json, "a Pod", [&](std::string_view key, od::value v) -> error_code {
    if (key == "metadata") return metadata(v, out);
    if (key == "spec") return pod_spec(v, out);
    if (key == "status") return pod_status(v, out);
    return SUCCESS;
  });
  if (!s) return s;
  out->conditions.shrink_to_fit();
  out->containers.shrink_to_fit();
  return named(*out, "a Pod");
}

Status Decoder::network_policy(std::string_view json, NetworkPolicyObject* out) {
  *out = {};
  auto s = impl_->parse(json, "a NetworkPolicy", [&](std::string_view key, od::value v) -> error_code {
    if (key == "metadata") return metadata(v, out, &out->managed);
    if (key == "spec") return network_policy_spec(v, out);
    return SUCCESS;
  });
  if (!s) return s;
  return named(*out, "a NetworkPolicy");
}

Status Decoder::event(std::string_view line, Event* out) {
  *out = {};
  std::string_view type;
  JsonSlice slice(line);
  std::string_view key, value;
  slice.enter('{');
  while (slice.next_field(&key, &value)) {
    if (key == "type") type = value;
    if (key == "object") out->object = value;
  }
  if (slice.failed() || !slice.at_end() || out->object.empty() || out->object.front() != '{') return invalid("a line of a watch that is no event");
  using Type = Event::Type;
  if (type == "\"ADDED\"") {
    out->type = Type::kAdded;
  } else if (type == "\"MODIFIED\"") {
    out->type = Type::kModified;
  } else if (type == "\"DELETED\"") {
    out->type = Type::kDeleted;
  } else if (type == "\"BOOKMARK\"") {
    out->type = Type::kBookmark;
    return impl_->parse(out->object, "a bookmark", [&](std::string_view k, od::value v) -> error_code {
      if (k != "metadata") return SUCCESS;
      return each_field(v, [&](std::string_view m, od::value part) -> error_code {
        if (m == "resourceVersion") return name(part, &out->resource_version);
        if (m != "annotations") return SUCCESS;
        return each_field(part, [&](std::string_view a, od::value flag) -> error_code {
          std::string_view s;
          if (auto e = text(flag, &s)) return e;
          if (a == "k8s.io/initial-events-end") out->initial_events_end = s == "true";
          return SUCCESS;
        });
      });
    });
  } else if (type == "\"ERROR\"") {
    out->type = Type::kError;
    return impl_->parse(out->object, "an error of a watch", [&](std::string_view k, od::value v) -> error_code {
      if (k == "code") return number(v, &out->code);
      if (k == "reason") return message(v, &out->reason);
      if (k == "message") return message(v, &out->message);
      return SUCCESS;
    });
  } else {
    return invalid("a line of a watch of an unknown type");
  }
  return Status::ok();
}

Status Decoder::list(std::string_view body, const std::function<Status(std::string_view)>& each, std::string* resource_version, std::string* next) {
  resource_version->clear();
  next->clear();
  std::string_view key, value, list_meta;
  JsonSlice slice(body);
  slice.enter('{');
  while (slice.next_field(&key, &value)) {
    if (key == "metadata") list_meta = value;
    if (key != "items" || value == "null") continue;
    JsonSlice items(value);
    items.enter('[');
    for (std::string_view item; items.next_element(&item);) {
      if (auto s = each(item); !s) return s;
    }
    if (items.failed()) return invalid("a list whose items are broken");
  }
  if (slice.failed() || !slice.at_end() || list_meta.empty()) return invalid("an answer that is no list");
  return impl_->parse(list_meta, "a list", [&](std::string_view k, od::value v) -> error_code {
    if (k == "resourceVersion") return name(v, resource_version);
    if (k != "continue") return SUCCESS;
    std::string_view token;  // opaque; carries a key, so it can be longer than a name
    if (auto e = text(v, &token)) return e;
    if (token.size() > kMaxAnnotation) return simdjson::CAPACITY;
    *next = token;
    return SUCCESS;
  });
}

}  // namespace bottle::kube
