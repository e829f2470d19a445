#include "controller/pki/pki.h"

#include <gmock/gmock.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "controller/pki/openssl_util.h"

namespace bottle::pki {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class Pki : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/pki-test-XXXXXX";
    dir_ = mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string put(const std::string& name, std::string_view bytes) {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << bytes;
    return dir_ + "/" + name;
  }
  // Exit status 0? Output in `out`.
  bool run(const std::string& command, std::string* out = nullptr) {
    const int rc = system(("cd " + dir_ + " && ( " + command + " ) > out 2>&1").c_str());  // NOLINT: commands of this test
    last_ = read_file(dir_ + "/out").value();
    if (out) *out = last_;
    return rc == 0;
  }
  static bool have(const std::string& tool) { return system(("command -v " + tool + " > /dev/null 2>&1").c_str()) == 0; }  // NOLINT
  std::string dir_, last_;
};

TEST_F(Pki, TheCaIsWhatItsUsersWant) {
  const int64_t now = time(nullptr);
  for (KeyType type : {KeyType::kRsa2048, KeyType::kEcdsaP256}) {
    auto ca = make_egress_ca(type, now);
    ASSERT_TRUE(ca) << ca.status().message();
    EXPECT_EQ(ca->not_after, now + 365 * 86'400);
    EXPECT_THAT(ca->fingerprint, testing::MatchesRegex("sha256:[0-9a-f]+"));
    EXPECT_EQ(ca->fingerprint.size(), 7u + 64u);
    EXPECT_TRUE(ca->key_pem.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
    put("ca.pem", ca->cert_pem);
    put("ca.key", ca->key_pem.expose());
    std::string text;
    ASSERT_TRUE(run("openssl x509 -in ca.pem -noout -text -fingerprint -sha256", &text)) << text;
    for (const char* part : {"Version: 3", "O = claude-bottle, CN = claude-bottle egress CA", "X509v3 Basic Constraints: critical",
                             "CA:TRUE", "X509v3 Key Usage: critical", "Certificate Sign, CRL Sign", "X509v3 Subject Key Identifier"})
      EXPECT_THAT(text, HasSubstr(part));
    EXPECT_THAT(text, HasSubstr(type == KeyType::kRsa2048 ? "2048 bit" : "prime256v1"));
    // A leaf as the engine makes them, and the strictest check there is.
    ASSERT_TRUE(run("openssl req -x509 -newkey rsa:2048 -nodes -keyout leaf.key -subj /CN=example.org -CA ca.pem -CAkey ca.key -days 1 "
                    "-addext subjectAltName=DNS:example.org -addext authorityKeyIdentifier=keyid "
                    "-addext basicConstraints=critical,CA:FALSE -out leaf.pem"))
        << last_;
    EXPECT_TRUE(run("openssl verify -x509_strict -check_ss_sig -purpose sslserver -verify_hostname example.org -CAfile ca.pem leaf.pem"))
        << last_;
    // Back-dated: valid on a machine whose clock is 50 minutes late.
    EXPECT_TRUE(run("openssl verify -x509_strict -attime " + std::to_string(now - 3000) + " -CAfile ca.pem ca.pem")) << last_;
  }
  EXPECT_EQ(make_egress_ca(KeyType::kByEngine, now).status().code(), Code::kInvalid);
}

TEST_F(Pki, TwoCasDiffer) {
  auto a = make_egress_ca(KeyType::kEcdsaP256, 1'700'000'000), b = make_egress_ca(KeyType::kEcdsaP256, 1'700'000'000);
  ASSERT_TRUE(a && b);
  EXPECT_NE(a->fingerprint, b->fingerprint);
  EXPECT_NE(a->key_pem.expose(), b->key_pem.expose());
}

TEST_F(Pki, LoadsWhatItMadeAndNothingElse) {
  auto a = make_egress_ca(KeyType::kRsa2048, 1'700'000'000), b = make_egress_ca(KeyType::kRsa2048, 1'700'000'000);
  ASSERT_TRUE(a && b);
  auto again = load_ca(a->cert_pem, a->key_pem.expose());
  ASSERT_TRUE(again) << again.status().message();
  EXPECT_EQ(again->fingerprint, a->fingerprint);
  EXPECT_EQ(again->not_after, a->not_after);
  EXPECT_EQ(again->cert_pem, a->cert_pem);
  EXPECT_EQ(again->key_pem.expose(), a->key_pem.expose());
  const SecretString both = mitmproxy_pem(*a);
  EXPECT_TRUE(load_ca(a->cert_pem, both.expose())) << "the key is found in the combined file";
  EXPECT_THAT(std::string(both.expose()), HasSubstr(a->cert_pem));

  EXPECT_THAT(load_ca(a->cert_pem, b->key_pem.expose()).status().message(), HasSubstr("do not belong together"));
  EXPECT_EQ(load_ca(a->cert_pem, "").status().code(), Code::kInvalid);
  EXPECT_EQ(load_ca("", a->key_pem.expose()).status().code(), Code::kInvalid);
  EXPECT_EQ(load_ca(a->cert_pem + b->cert_pem, a->key_pem.expose()).status().code(), Code::kInvalid);
  const std::string key(a->key_pem.expose());
  const Status s = load_ca(key, key).status();
  EXPECT_THAT(s.message(), HasSubstr("no certificate: PRIVATE KEY"));
  EXPECT_THAT(s.message(), Not(HasSubstr(key.substr(40, 20))));
  put("k", key);
  ASSERT_TRUE(run("openssl pkcs8 -topk8 -in k -out enc -passout pass:secret && openssl req -x509 -newkey rsa:2048 -nodes -keyout k2 "
                  "-subj /CN=x -addext basicConstraints=critical,CA:FALSE -out notca.pem"))
      << last_;
  EXPECT_EQ(load_ca(a->cert_pem, *read_file(dir_ + "/enc")).status().code(), Code::kInvalid);
  EXPECT_THAT(load_ca(*read_file(dir_ + "/notca.pem"), *read_file(dir_ + "/k2")).status().message(), HasSubstr("authority"));
}

TEST_F(Pki, RenewalAfterTwoThirds) {
  const int64_t now = 1'700'000'000, day = 86'400;
  auto ca = make_egress_ca(KeyType::kEcdsaP256, now);
  ASSERT_TRUE(ca);
  EXPECT_FALSE(needs_renewal(*ca, now));
  EXPECT_FALSE(needs_renewal(*ca, now + 243 * day));
  EXPECT_TRUE(needs_renewal(*ca, now + 244 * day));
  EXPECT_TRUE(needs_renewal(*ca, ca->not_after + 1));
  EXPECT_TRUE(needs_renewal(CertificateAuthority{}, now));
}

TEST_F(Pki, TheBundleIsCleanAndHasNoDuplicates) {
  auto a = make_egress_ca(KeyType::kEcdsaP256, 1'700'000'000), b = make_egress_ca(KeyType::kRsa2048, 1'700'000'000);
  ASSERT_TRUE(a && b);
  auto bundle = make_bundle("# Some root\r\n" + a->cert_pem + "\ncomment\n" + a->cert_pem, "  \n" + b->cert_pem + a->cert_pem);
  ASSERT_TRUE(bundle) << bundle.status().message();
  EXPECT_EQ(*bundle, a->cert_pem + b->cert_pem);
  EXPECT_EQ(*make_bundle(a->cert_pem, ""), a->cert_pem);
  EXPECT_EQ(*make_bundle("", a->cert_pem), a->cert_pem);

  EXPECT_EQ(make_bundle("", "").status().code(), Code::kInvalid);
  EXPECT_EQ(make_bundle("not PEM at all", b->cert_pem).status().code(), Code::kInvalid);
  EXPECT_EQ(make_bundle(a->cert_pem, std::string(b->key_pem.expose())).status().code(), Code::kInvalid);
  std::string torn = a->cert_pem.substr(0, a->cert_pem.size() / 2);
  EXPECT_EQ(make_bundle(torn, "").status().code(), Code::kInvalid);
  std::string flipped = a->cert_pem;
  flipped[40] = '!';
  EXPECT_EQ(make_bundle(b->cert_pem + flipped, "").status().code(), Code::kInvalid);
  EXPECT_EQ(make_bundle("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "").status().code(), Code::kInvalid);
}

TEST_F(Pki, TheSystemsRootsPass) {
  auto roots = read_file("/etc/ssl/certs/ca-certificates.crt");
  if (!roots) GTEST_SKIP() << "no ca-certificates";
  auto ca = make_egress_ca(KeyType::kEcdsaP256, time(nullptr));
  auto bundle = make_bundle(*roots, ca->cert_pem);
  ASSERT_TRUE(bundle) << bundle.status().message();
  EXPECT_TRUE(bundle->ends_with(ca->cert_pem));
  EXPECT_EQ(*make_bundle(*bundle, ""), *bundle);
  auto store = make_java_trust_store(*bundle);
  ASSERT_TRUE(store) << store.status().message();
  put("all.p12", *store);
  if (!have("keytool")) GTEST_SKIP() << "no Java";
  ASSERT_TRUE(run("keytool -list -keystore all.p12 -storetype PKCS12 -storepass changeit")) << last_;
  size_t certs = 0, entries = 0;
  for (size_t at = 0; (at = bundle->find("BEGIN CERT", at)) != std::string::npos; ++at) ++certs;
  for (size_t at = 0; (at = last_.find("trustedCertEntry", at)) != std::string::npos; ++at) ++entries;
  EXPECT_EQ(entries, certs);
}

TEST_F(Pki, JavaTrustsTheStore) {
  auto a = make_egress_ca(KeyType::kRsa2048, time(nullptr)), b = make_egress_ca(KeyType::kEcdsaP256, time(nullptr));
  ASSERT_TRUE(a && b);
  auto store = make_java_trust_store(a->cert_pem + b->cert_pem + a->cert_pem);
  ASSERT_TRUE(store) << store.status().message();
  put("t.p12", *store);
  ASSERT_TRUE(run("openssl pkcs12 -in t.p12 -nokeys -info -passin pass:changeit")) << last_;
  for (const char* part : {"AES-256-CBC", "hmacWithSHA256", "MAC: sha256", "2.16.840.1.113894.746875.1.1"})
    if (std::string_view(part).starts_with("2.") && last_.find("rustedKeyUsage") != std::string::npos)
      continue;  // OpenSSL 3.2 and later print its name
    else
      EXPECT_THAT(last_, HasSubstr(part));
  EXPECT_FALSE(run("openssl pkcs12 -in t.p12 -nokeys -passin pass:wrong"));
  if (!have("java") || !have("javac")) GTEST_SKIP() << "no JDK";
  put("Anchors.java", R"(import java.io.*; import java.security.*; import java.security.cert.*; import javax.net.ssl.*;
public class Anchors { public static void main(String[] a) throws Exception {
  KeyStore ks = KeyStore.getInstance("PKCS12");
  try (InputStream in = new FileInputStream(a[0])) { ks.load(in, "changeit".toCharArray()); }
  TrustManagerFactory f = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm()); f.init(ks);
  X509TrustManager tm = (X509TrustManager) f.getTrustManagers()[0];
  System.out.println("anchors " + tm.getAcceptedIssuers().length);
  X509Certificate leaf; try (InputStream in = new FileInputStream(a[1])) {
    leaf = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(in); }
  tm.checkServerTrusted(new X509Certificate[]{leaf}, "RSA"); System.out.println("trusted"); } })");
  put("ca.pem", a->cert_pem);
  put("ca.key", a->key_pem.expose());
  ASSERT_TRUE(run("openssl req -x509 -newkey rsa:2048 -nodes -keyout l.key -subj /CN=example.org -CA ca.pem -CAkey ca.key -days 1 "
                  "-addext subjectAltName=DNS:example.org -addext basicConstraints=critical,CA:FALSE -out leaf.pem && "
                  "java -Xmx128m Anchors.java t.p12 leaf.pem"))
      << last_;
  EXPECT_THAT(last_, HasSubstr("anchors 2"));
  EXPECT_THAT(last_, HasSubstr("trusted"));
  EXPECT_EQ(make_java_trust_store("").status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace bottle::pki
