// What an informer holds: its objects by namespace and name, and by their owner. Two small tree nodes an object and no copy of a key.
// Not for several threads: the informer has the lock.
#ifndef CONTROLLER_KUBE_INFORMER_STORE_H_
#define CONTROLLER_KUBE_INFORMER_STORE_H_

#include <memory>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

namespace bottle::kube {

struct ObjectKey {
  std::string_view ns, name;
};

template <class T>
class InformerStore {
 public:
  using Object = std::shared_ptr<const T>;
  struct ByName {
    using is_transparent = void;
    static auto key(const Object& o) { return std::tuple<std::string_view, std::string_view>(o->ns, o->name); }
    static auto key(const ObjectKey& k) { return std::tuple(k.ns, k.name); }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const { return key(a) < key(b); }
  };
  using Set = std::set<Object, ByName>;
  // `old` is null for an addition, `now` for a deletion.
  struct Change {
    Object old, now;
  };

  Object get(std::string_view ns, std::string_view name) const {
    auto it = objects_.find(ObjectKey{ns, name});
    return it == objects_.end() ? nullptr : *it;
  }
  // Nothing changes when it is there in the same version. A name with another uid is another object: the old one has gone.
  void put(const Object& now, std::vector<Change>* changes) {
    const Object old = get(now->ns, now->name);
    if (old && old->uid == now->uid && old->resource_version == now->resource_version) return;
    if (old) erase(old);
    objects_.insert(now);
    if (!now->owner_uid.empty()) owned_.insert(now.get());
    if (old && old->uid != now->uid) {
      changes->push_back({old, nullptr});
      changes->push_back({nullptr, now});
    } else {
      changes->push_back({old, now});
    }
  }
  bool remove(std::string_view ns, std::string_view name) {
    const Object old = get(ns, name);
    if (old) erase(old);
    return old != nullptr;
  }
  // `whole` is all there is in `ns` (empty: everywhere): what is not in it was deleted while nobody looked.
  void replace(std::string_view ns, const Set& whole, std::vector<Change>* changes) {
    for (const Object& old : ns.empty() ? all() : in_namespace(ns)) {
      if (whole.count(old)) continue;
      erase(old);
      changes->push_back({old, nullptr});
    }
    for (const Object& now : whole) put(now, changes);
  }
  std::vector<Object> by_owner(std::string_view uid) const {
    std::vector<Object> out;
    if (uid.empty()) return out;
    for (auto it = owned_.lower_bound(uid); it != owned_.end() && (*it)->owner_uid == uid; ++it) out.push_back(get((*it)->ns, (*it)->name));
    return out;
  }
  std::vector<Object> in_namespace(std::string_view ns) const {
    std::vector<Object> out;
    for (auto it = objects_.lower_bound(ObjectKey{ns, {}}); it != objects_.end() && (*it)->ns == ns; ++it) out.push_back(*it);
    return out;
  }
  std::vector<Object> all() const { return {objects_.begin(), objects_.end()}; }
  size_t size() const { return objects_.size(); }

 private:
  void erase(const Object& old) {
    owned_.erase(old.get());
    objects_.erase(old);
  }
  struct ByOwner {
    using is_transparent = void;
    static auto key(const T* o) { return std::tuple<std::string_view, std::string_view, std::string_view>(o->owner_uid, o->ns, o->name); }
    bool operator()(const T* a, const T* b) const { return key(a) < key(b); }
    bool operator()(const T* a, std::string_view uid) const { return a->owner_uid < uid; }
    bool operator()(std::string_view uid, const T* b) const { return uid < b->owner_uid; }
  };
  Set objects_;
  std::set<const T*, ByOwner> owned_;
};

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_INFORMER_STORE_H_
