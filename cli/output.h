// How the commands speak: exit codes, colours, tables, YAML.
#ifndef CLI_OUTPUT_H_
#define CLI_OUTPUT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/cli.h"

namespace bottle::cli {

using Json = nlohmann::ordered_json;

int exit_code(const Status& status);
// Prints "error: …" and returns the exit code.
int fail(Context& c, const Status& status);
void warn(Context& c, std::string_view text);

enum class Color { kRed, kGreen, kYellow, kDim, kBold };
std::string paint(bool enabled, Color color, std::string_view text);

// Control characters as \xNN, so that what an agent chose cannot drive the terminal.
std::string printable(std::string_view text);

// Columns padded to their widest cell, two blanks between, nothing behind the last.
std::string table(const std::vector<std::vector<std::string>>& rows);

// Block-style YAML that any reader takes for the same value; strings are quoted where they could be taken for something else.
std::string to_yaml(const Json& value);
std::string to_output(const Json& value, const std::string& format);  // "json" or "yaml"

// "37s", "5m", "3h", "2d" between two times; "-" if `since` is not RFC 3339 in UTC.
std::string age(const std::string& since, int64_t now);

// Lines on stderr while something takes its time: "  1.2s  guard   rules verified". A line that repeats is shown once.
Progress progress_lines(Context& c);

// One object for `ls -o json` and `get`: the Bottle with its status.
Json observation_json(const Observation& o);

}  // namespace bottle::cli

#endif  // CLI_OUTPUT_H_
