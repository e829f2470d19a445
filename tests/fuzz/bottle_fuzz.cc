// parse_bottle_file takes any bytes; a Bottle that it accepts survives render and parse unchanged.
#include <cstdio>
#include <cstdlib>

#include "controller/bottle/parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Filled-in defaults are longer than what was written: larger files could leave the parser's own bounds.
  if (size > 8192) return 0;
  bottle::BottleFile file = bottle::parse_bottle_file({reinterpret_cast<const char*>(data), size});
  for (const auto& d : file.diagnostics) (void)bottle::to_string(d, "fuzz.yaml");
  if (!file.ok()) return 0;
  for (const bottle::Bottle& bottle : file.bottles) {
    std::string first = bottle::render_bottle_json(bottle);
    bottle::BottleFile again = bottle::parse_bottle_file(first);
    if (again.ok() && again.bottles.size() == 1 && bottle::render_bottle_json(again.bottles[0]) == first) continue;
    std::fprintf(stderr, "%s", first.c_str());
    for (const auto& d : again.diagnostics) std::fprintf(stderr, "%s\n", bottle::to_string(d, "rendered").c_str());
    std::abort();
  }
  return 0;
}
