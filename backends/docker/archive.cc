#include "backends/docker/archive.h"

#include <cstdio>
#include <cstring>
#include <utility>

namespace bottle::docker {
namespace {
constexpr size_t kBlock = 512;
}

Result<std::string> untar_one(std::string_view tar) {
  while (tar.size() >= kBlock && tar[0] != '\0') {
    uint64_t size = 0;
    for (char c : tar.substr(124, 12)) {
      if (c == '\0' || c == ' ') continue;
      if (c < '0' || c > '7') return Status(Code::kInvalid, "archive of the engine: bad size");
      size = size * 8 + static_cast<uint64_t>(c - '0');
    }
    char type = tar[156];
    tar.remove_prefix(kBlock);
    if (size > tar.size()) return Status(Code::kInvalid, "archive of the engine is cut short");
    if (type == '0' || type == '\0') return std::string(tar.substr(0, size));
    uint64_t padded = (size + kBlock - 1) / kBlock * kBlock;
    tar.remove_prefix(padded > tar.size() ? tar.size() : padded);
  }
  return Status(Code::kNotFound, "no file in the engine's archive");
}

std::string tar_folder(std::string_view name, uint32_t mode, uint32_t uid, uint32_t gid) {
  std::string block(kBlock, '\0');
  auto put = [&](size_t at, std::string_view text) { block.replace(at, text.size(), text); };
  auto octal = [&](size_t at, int digits, uint32_t value) {
    char text[16];
    std::snprintf(text, sizeof text, "%0*o", digits, value);
    put(at, std::string_view(text));
  };
  put(0, name.substr(0, 99));
  octal(100, 7, mode);
  octal(108, 7, uid);
  octal(116, 7, gid);
  octal(124, 11, 0);
  octal(136, 11, 0);
  block[156] = '5';
  put(257, std::string_view("ustar\00000", 8));
  put(148, "        ");
  uint32_t sum = 0;
  for (unsigned char c : block) sum += c;
  octal(148, 6, sum);
  block[154] = '\0';
  return block + std::string(2 * kBlock, '\0');
}

}  // namespace bottle::docker
