#include "backends/kubernetes/egress_status.h"

#include <gmock/gmock.h>
#include <httplib.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <thread>

namespace bottle::kubernetes {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using namespace std::chrono_literals;

constexpr char kKey[] = "0f0e0d0c0b0a09080706050403020100";
constexpr char kNonce[] = "0123456789abcdef0123456789abcdef";

std::string mac_of(const std::string& nonce, const std::string& body, const std::string& key = kKey) {
  const std::string text = nonce + "\n" + body;
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes, text.size(), mac, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", mac[i]);
    hex += two;
  }
  return hex;
}

std::string report(const std::string& nonce) {
  return R"({"policyHash": "sha256:aa", "fileSha256": "sha256:bb", "tokens": {"A": "present", "B": "missing"}, "error": null,)"
         R"( "ready": true, "generation": 1, "nonce": ")" +
         nonce + "\"}";
}

Result<EgressStatus> checked(const std::string& body, const std::string& mac, const std::string& nonce = kNonce) {
  return check_egress_answer(nonce, body, mac, SecretString(kKey));
}

TEST(Answer, TellsWhatIsInForce) {
  auto s = checked(report(kNonce), mac_of(kNonce, report(kNonce)));
  ASSERT_TRUE(s) << s.status().message();
  EXPECT_EQ(s->policy_hash, "sha256:aa");
  EXPECT_TRUE(s->ready);
  EXPECT_EQ(s->error, "");
  EXPECT_THAT(s->missing_tokens, ElementsAre("B"));
}

TEST(Answer, IsRefusedWithoutItsProof) {
  const std::string body = report(kNonce), mac = mac_of(kNonce, body);
  const std::string other(32, '0');
  for (const auto& r : {checked(body, ""), checked(body, mac.substr(1)), checked(body, mac + "0"), checked(body + " ", mac),
                        checked(body, mac_of(kNonce, body, "another key")), checked(body, std::string(64, '0')),
                        checked(body, mac, other),                                          // a replay
                        checked(report(other), mac_of(kNonce, report(other))),              // another question's report
                        checked("[]", mac_of(kNonce, "[]")), checked("", mac_of(kNonce, ""))}) {
    EXPECT_EQ(r.status().code(), Code::kPermission);
  }
  EXPECT_EQ(check_egress_answer(kNonce, body, mac_of(kNonce, body, ""), SecretString()).status().code(), Code::kInternal);
}

TEST(Answer, WithUnexpectedTypesIsAnEmptyOne) {
  const std::string body = std::string(R"({"policyHash": 1, "tokens": ["A"], "error": {}, "ready": "yes", "nonce": ")") + kNonce + "\"}";
  auto s = checked(body, mac_of(kNonce, body));
  ASSERT_TRUE(s);
  EXPECT_EQ(s->policy_hash, "");
  EXPECT_FALSE(s->ready);
  EXPECT_THAT(s->missing_tokens, IsEmpty());
}

TEST(Key, IsRandomHex) {
  auto a = make_status_key(), b = make_status_key();
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->size(), 64u);
  EXPECT_EQ(a->expose().find_first_not_of("0123456789abcdef"), std::string_view::npos);
  EXPECT_NE(a->expose(), b->expose());
}

// Whoever has the port.
class Ask : public testing::Test {
 protected:
  void serve(const std::string& host, httplib::Server::Handler handler) {
    server_.Get("/status", std::move(handler));
    port_ = server_.bind_to_any_port(host.c_str());
    ASSERT_GT(port_, 0);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  void TearDown() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  Result<EgressStatus> ask(const std::string& ip = "127.0.0.1", std::chrono::milliseconds limit = 5s) {
    return ask_egress(ip, static_cast<uint16_t>(port_), SecretString(kKey), limit);
  }
  static void answer(const httplib::Request& q, httplib::Response& r) {
    const std::string nonce = q.get_param_value("nonce");
    r.set_header("bottle-MAC", mac_of(nonce, report(nonce)));
    r.set_content(report(nonce), "application/json");
  }

  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
};

TEST_F(Ask, EgressAnswers) {
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);  // is not for pods
  serve("127.0.0.1", answer);
  auto s = ask();
  ASSERT_TRUE(s) << s.status().message();
  EXPECT_EQ(s->policy_hash, "sha256:aa");
  EXPECT_TRUE(ask());  // with another nonce
  ::unsetenv("http_proxy");
}

TEST_F(Ask, OverIPv6) {
  serve("::1", answer);
  auto s = ask("::1");
  EXPECT_TRUE(s) << s.status().message();
}

TEST_F(Ask, ARecordedAnswerIsNoAnswer) {
  std::string body, mac;
  serve("127.0.0.1", [&](const httplib::Request& q, httplib::Response& r) {
    if (body.empty()) {
      body = report(q.get_param_value("nonce"));
      mac = mac_of(q.get_param_value("nonce"), body);
    }
    r.set_header("Bottle-Mac", mac);
    r.set_content(body, "application/json");
  });
  EXPECT_TRUE(ask());
  EXPECT_EQ(ask().status().code(), Code::kPermission);
}

TEST_F(Ask, DoesNotFollowAnyone) {
  int followed = 0;
  server_.Get("/elsewhere", [&](const httplib::Request&, httplib::Response&) { ++followed; });
  serve("127.0.0.1", [](const httplib::Request&, httplib::Response& r) { r.set_redirect("/elsewhere"); });
  EXPECT_EQ(ask().status().code(), Code::kPermission);
  EXPECT_EQ(followed, 0);
}

TEST_F(Ask, ABodyWithoutEndIsCut) {
  serve("127.0.0.1", [](const httplib::Request&, httplib::Response& r) {
    r.set_chunked_content_provider("application/json", [](size_t, httplib::DataSink& sink) {
      const std::string block(8192, ' ');
      return sink.write(block.data(), block.size());
    });
  });
  EXPECT_EQ(ask().status().code(), Code::kPermission);
}

TEST_F(Ask, NobodyAndSomebodySlow) {
  EXPECT_EQ(ask_egress("127.0.0.1", 1, SecretString(kKey), 5s).status().code(), Code::kUnavailable);
  serve("127.0.0.1", [](const httplib::Request&, httplib::Response& r) {
    r.set_chunked_content_provider("application/json", [](size_t, httplib::DataSink& sink) {
      std::this_thread::sleep_for(5ms);
      return sink.write(" ", 1);
    });
  });
  EXPECT_EQ(ask("127.0.0.1", 200ms).status().code(), Code::kTimeout);
}

}  // namespace
}  // namespace bottle::kubernetes
