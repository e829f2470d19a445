// JSON text cut into the texts of its parts without parsing them: what lets a page of a list, or a frame of a watch, be handled object by
// object at the memory of one. Checks nesting, strings' ends and depth; what is inside a part its own parser judges. Pure.
#ifndef CONTROLLER_KUBE_JSON_SLICE_H_
#define CONTROLLER_KUBE_JSON_SLICE_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace bottle::kube {

inline constexpr size_t kMaxDepth = 100;  // Kubernetes' own kinds stay below 25; a Bottle's free-form parts have no use for more

class JsonSlice {
 public:
  explicit JsonSlice(std::string_view text) : rest_(text) {}
  // enter('{') or enter('['), then next_field or next_element until they give false; after that failed() tells an end from a defect.
  bool enter(char open);
  bool next_field(std::string_view* key, std::string_view* value);  // the key without quotes, as written
  bool next_element(std::string_view* value);
  bool failed() const { return failed_; }
  bool at_end();                                                      // nothing but white space follows

 private:
  bool next_part(char close);
  bool string(std::string_view* out);
  bool value(std::string_view* out);
  void space();
  char peek() const { return rest_.empty() ? '\0' : rest_.front(); }
  bool fail() {
    failed_ = true;
    return false;
  }

  std::string_view rest_;
  bool first_ = true, failed_ = false;
};

// `value` without white space between its tokens. False when its nesting is broken or too deep.
bool compact_json(std::string_view value, std::string* out);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_JSON_SLICE_H_
