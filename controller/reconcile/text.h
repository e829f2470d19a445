// Small pure helpers on text and rendered objects.
#ifndef CONTROLLER_RECONCILE_TEXT_H_
#define CONTROLLER_RECONCILE_TEXT_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace bottle::reconcile {

// bot-bottle.dev/<name> of a rendered object; "" when it has none.
std::string annotation_of(const nlohmann::json& object, std::string_view name);
// Adds bot-bottle.dev/<name>.
void annotate(nlohmann::json& object, std::string_view name, std::string_view value);

// What others say, made fit for a message: control characters become spaces, at most `limit` bytes, cut between UTF-8 characters.
std::string plain(std::string_view text, size_t limit);
std::string joined(const std::vector<std::string>& words, std::string_view separator = ", ");
// "90 s", "15 min", "3 h", "243 d".
std::string duration_text(int64_t seconds);
// resourceVersion a >= b, as unsigned decimals of any length (KEP-5504). An empty one is older than all.
bool not_older(std::string_view a, std::string_view b);

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_TEXT_H_
