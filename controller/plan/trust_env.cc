// How each client finds the proxy and trusts the egress CA. No one variable serves them all: facts differ per library, and a client that
// misses its variable fails in a way that looks like a broken network.
#include "controller/plan/internal.h"

namespace bottle::plan_internal {
namespace {

std::string proxy_url(uint16_t port) { return "http://egress:" + std::to_string(port); }

constexpr const char* kNoProxy = "localhost,127.0.0.1,::1,git-gate,supervise";

}  // namespace

std::vector<EnvVar> trust_env(uint16_t egress_port) {
  const std::string proxy = proxy_url(egress_port), port = std::to_string(egress_port);
  const std::string dir = std::string(kTrustDir) + "/", bundle = dir + "bundle.pem";
  std::map<std::string, std::string> env;
  for (const char* name : {"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"}) env[name] = proxy;
  env["NO_PROXY"] = env["no_proxy"] = kNoProxy;
  for (const char* name : {
           "SSL_CERT_FILE",                     // OpenSSL's default paths: python ssl, httpx, go, ruby, curl
           "CURL_CA_BUNDLE",                    // curl
           "REQUESTS_CA_BUNDLE", "PIP_CERT",    // python requests (not SSL_CERT_FILE), pip
           "HTTPLIB2_CA_CERTS",                 // python httplib2
           "NODE_EXTRA_CA_CERTS",               // node, bun, electron
           "npm_config_cafile",                 // npm
           "YARN_HTTPS_CA_FILE_PATH",           // yarn 2 and later
           "GIT_SSL_CAINFO",                    // git with GnuTLS reads nothing else
           "CARGO_HTTP_CAINFO",                 // cargo
           "AWS_CA_BUNDLE",                     // AWS SDKs and CLI
           "DENO_CERT",                         // deno
           "BUNDLE_SSL_CA_CERT",                // bundler
           "BUN_CA",                            // bun
           "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  // gRPC core
           "HEX_CACERTS_PATH",                  // elixir hex
           "NIX_SSL_CERT_FILE",                 // nix
           "PERL_LWP_SSL_CA_FILE"})             // perl LWP
    env[name] = bundle;
  env["NODE_USE_ENV_PROXY"] = "1";  // node's fetch() ignores the proxy variables without it
  env["UV_NATIVE_TLS"] = "true";    // uv carries its own roots otherwise
  env["WGETRC"] = dir + "wgetrc";
  env["APT_CONFIG"] = dir + "apt.conf";
  // Java reads neither the proxy variables nor PEM.
  env["JAVA_TOOL_OPTIONS"] = "-Djavax.net.ssl.trustStore=" + dir +
                             "truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
                             " -Dhttps.proxyHost=egress -Dhttps.proxyPort=" + port +
                             " -Dhttp.proxyHost=egress -Dhttp.proxyPort=" + port +
                             " -Dhttp.nonProxyHosts=localhost|127.*|[::1]|git-gate|supervise";
  std::vector<EnvVar> out;
  for (auto& [name, value] : env) out.push_back({name, value});
  return out;
}

std::map<std::string, std::string> trust_files(uint16_t egress_port) {
  const std::string proxy = proxy_url(egress_port), bundle = std::string(kTrustDir) + "/bundle.pem";
  return {
      {"wgetrc", "ca_certificate = " + bundle + "\nuse_proxy = on\nhttps_proxy = " + proxy + "\nhttp_proxy = " + proxy +
                     "\nno_proxy = " + kNoProxy + "\n"},
      {"apt.conf", "Acquire::http::Proxy \"" + proxy + "\";\nAcquire::https::Proxy \"" + proxy + "\";\nAcquire::https::CAInfo \"" +
                       bundle + "\";\n"},
  };
}

}  // namespace bottle::plan_internal
