#include "sidecars/guard/trust.h"

#include <dirent.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>

#include "base/file.h"
#include "controller/pki/pki.h"

namespace bottle::guard {
namespace {

constexpr mode_t kReadable = 0644;
constexpr size_t kMaxFile = 1u << 20;

struct CloseDir {
  void operator()(DIR* d) const { closedir(d); }
};

// The files of a folder by name. Names with a dot in front are the kubelet's own folders behind the links.
Result<std::map<std::string, std::string>> files_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  if (folder.empty()) return files;
  std::unique_ptr<DIR, CloseDir> dir(opendir(folder.c_str()));
  if (!dir) return {Code::kNotFound, "open " + folder + ": " + std::strerror(errno)};
  while (const dirent* entry = readdir(dir.get())) {
    const std::string name = entry->d_name;
    if (name.front() == '.') continue;
    auto text = read_file(folder + "/" + name, kMaxFile);
    if (!text) return text.status();
    files[name] = *std::move(text);
  }
  return files;
}

}  // namespace

Status write_trust(const TrustPaths& paths) {
  auto roots = read_file(paths.roots, 16 * kMaxFile);
  if (!roots) return roots.status().with_context("read the public roots");
  auto ca = read_file(paths.ca, kMaxFile);
  if (!ca) return ca.status().with_context("read the certificate of the egress CA");
  auto fixed = files_of(paths.trust_in);
  if (!fixed) return fixed.status().with_context("read the agent's static trust files");
  auto extra_files = files_of(paths.upstream_in);
  if (!extra_files) return extra_files.status().with_context("read the additional roots");

  auto bundle = pki::make_bundle(*roots, *ca);
  if (!bundle) return bundle.status().with_context("trust for the agent");
  auto java = pki::make_java_trust_store(*bundle);
  if (!java) return java.status().with_context("trust store for Java");
  std::string extra;
  for (const auto& [name, pem] : *extra_files) extra += pem + "\n";
  auto upstream = pki::make_bundle(*roots, extra);
  if (!upstream) return upstream.status().with_context("trust for upstream TLS (egress.upstreamCAs)");

  std::map<std::string, std::string> out = *std::move(fixed);
  out["ca.pem"] = *std::move(ca);
  out["bundle.pem"] = *std::move(bundle);
  out["truststore.p12"] = *std::move(java);
  for (const auto& [name, content] : out)
    if (Status s = write_file(paths.trust_out + "/" + name, content, kReadable); !s) return s.with_context("write the agent's trust files");
  return write_file(paths.upstream_out + "/upstream-ca.pem", *upstream, kReadable).with_context("write the trust for upstream TLS");
}

}  // namespace bottle::guard
