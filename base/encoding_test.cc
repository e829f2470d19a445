#include "base/encoding.h"

#include <gtest/gtest.h>

namespace bottle {
namespace {

TEST(Hex, IsLowerCase) { EXPECT_EQ(hex(std::string("\x00\xab\x7f", 3)), "00ab7f"); }

// RFC 4648, section 10.
TEST(Base64, FollowsTheRfc) {
  for (const auto& [plain, coded] : {std::pair{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}}) {
    EXPECT_EQ(base64(plain), coded);
    EXPECT_EQ(decode_base64(coded), plain);
  }
  std::string to = "data: ";
  append_base64(to, "foo");
  EXPECT_EQ(to, "data: Zm9v");
}

TEST(Base64, SkipsLineEndsAndRefusesWhatItIsNot) {
  EXPECT_EQ(decode_base64("Zm9v\r\n YmFy\n"), "foobar");
  for (const char* bad : {"Zm9", "Zm9v!", "%%%%", "Zg==Zg==", "Z===", "====", "=Zm9"}) EXPECT_EQ(decode_base64(bad), std::nullopt) << bad;
}

TEST(Percent, KeepsWhatIsUnreservedAlone) { EXPECT_EQ(percent_encode("aZ09-._~ /%\xc3\xa4"), "aZ09-._~%20%2F%25%C3%A4"); }

}  // namespace
}  // namespace bottle
