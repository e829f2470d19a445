#include "backends/kubernetes/egress_status.h"

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/encoding.h"

namespace bottle::kubernetes {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxAnswer = 64u << 10;
constexpr size_t kNonceBytes = 16, kKeyBytes = 32;

Result<std::string> random_hex(size_t size) {
  unsigned char bytes[kKeyBytes];
  if (size > sizeof bytes || RAND_bytes(bytes, static_cast<int>(size)) != 1)
    return {Code::kInternal, "the crypto library has no random bytes"};
  std::string out = hex({reinterpret_cast<const char*>(bytes), size});
  OPENSSL_cleanse(bytes, sizeof bytes);
  return out;
}

std::string text_at(const Json& j, const char* key) {
  auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
}

struct Answer {
  std::string body, mac;
  bool too_large = false;
};

size_t on_body(char* data, size_t, size_t size, void* user) {
  auto* answer = static_cast<Answer*>(user);
  answer->too_large = size > kMaxAnswer - answer->body.size();
  if (answer->too_large) return 0;
  answer->body.append(data, size);
  return size;
}

size_t on_header(char* data, size_t, size_t size, void* user) {
  static constexpr std::string_view kName = "bottle-mac:";
  std::string_view line(data, size);
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; };
  if (line.size() < kName.size() || !std::equal(kName.begin(), kName.end(), line.begin(), [&](char b, char a) { return same(a, b); }))
    return size;
  line.remove_prefix(kName.size());
  const size_t begin = line.find_first_not_of(" \t"), end = line.find_last_not_of(" \t\r\n");
  // A second header of the name takes the first one's place, and then has to be right.
  static_cast<Answer*>(user)->mac = begin == line.npos ? "" : std::string(line.substr(begin, std::min<size_t>(end + 1 - begin, 128)));
  return size;
}

Status transfer_error(CURLcode rc, const Answer& answer) {
  if (answer.too_large) return {Code::kPermission, "egress' status is larger than 64 KiB: it is not egress that answers"};
  const std::string why = curl_easy_strerror(rc);
  if (rc == CURLE_OPERATION_TIMEDOUT) return {Code::kTimeout, "egress does not tell its status in time"};
  return {Code::kUnavailable, "egress does not tell its status: " + why};
}

}  // namespace

Result<SecretString> make_status_key() {
  auto key = random_hex(kKeyBytes);
  if (!key) return key.status();
  return SecretString(*std::move(key));
}

Result<EgressStatus> check_egress_answer(std::string_view nonce, std::string_view body, std::string_view mac_hex, const SecretString& key) {
  if (key.empty()) return {Code::kInternal, "there is no status key to check egress' answer with"};
  const Status forged(Code::kPermission, "the status on egress' port does not come from egress: its proof is wrong");
  std::string said(nonce);
  said.append("\n").append(body);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const std::string_view secret = key.expose();
  const auto* text = reinterpret_cast<const unsigned char*>(said.data());
  if (!HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), text, said.size(), mac, &size))
    return {Code::kInternal, "the crypto library refuses HMAC-SHA256"};
  const std::string want = hex({reinterpret_cast<const char*>(mac), size});
  if (mac_hex.size() != want.size() || CRYPTO_memcmp(mac_hex.data(), want.data(), want.size()) != 0) return forged;

  const Json report = Json::parse(body, nullptr, false);
  if (!report.is_object() || text_at(report, "nonce") != nonce) return forged;
  EgressStatus status;
  status.policy_hash = text_at(report, "policyHash");
  status.error = text_at(report, "error");
  if (auto it = report.find("ready"); it != report.end() && it->is_boolean()) status.ready = it->get<bool>();
  if (auto it = report.find("tokens"); it != report.end() && it->is_object())
    for (const auto& [env, state] : it->items())
      if (!state.is_string() || state.get_ref<const std::string&>() != "present") status.missing_tokens.push_back(env);
  return status;
}

Result<EgressStatus> ask_egress(const std::string& ip, uint16_t port, const SecretString& key, std::chrono::milliseconds timeout) {
  // Thread-safe since libcurl 7.84 where the platform has atomics; a static's initialisation is one on any.
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), curl_easy_cleanup);
  if (global != CURLE_OK || !easy) return {Code::kInternal, "libcurl does not start"};
  auto nonce = random_hex(kNonceBytes);
  if (!nonce) return nonce.status();
  const bool v6 = ip.find(':') != ip.npos;
  const std::string url = "http://" + (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port) + "/status?nonce=" + *nonce;
  Answer answer;
  CURL* c = easy.get();
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt(c, CURLOPT_PROXY, "");  // not the environment's: a pod's address means nothing to it
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);  // a library does not touch the process's signals
  curl_easy_setopt(c, CURLOPT_USERAGENT, "bottle-controller");
  curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<int64_t>(1, timeout.count())));
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &answer);
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, &answer);
  if (CURLcode rc = curl_easy_perform(c); rc != CURLE_OK) return transfer_error(rc, answer);
  long code = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
  if (code != 200)
    return {Code::kPermission, "the status on egress' port is HTTP " + std::to_string(code) + ": whoever answers has not the bottle's key"};
  return check_egress_answer(*nonce, answer.body, answer.mac, key);
}

}  // namespace bottle::kubernetes
