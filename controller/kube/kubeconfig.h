// kubeconfig files: reading, merging, and what a context of them means. Reads the files that they name; asks no server.
// Source: client-go tools/clientcmd (loader.go, validation.go), tools/clientcmd/api/v1/types.go.
#ifndef CONTROLLER_KUBE_KUBECONFIG_H_
#define CONTROLLER_KUBE_KUBECONFIG_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "controller/bottle/yaml_reader.h"
#include "controller/kube/config.h"

namespace bottle::kube {

// The first file that has a cluster, user or context of a name wins, for the whole of it; the first current-context that is set wins.
class Kubeconfig {
 public:
  Kubeconfig() = default;
  Kubeconfig(const Kubeconfig&) = delete;
  Kubeconfig& operator=(const Kubeconfig&) = delete;
  ~Kubeconfig();  // wipes what it read

  // `path` is for messages and for what relative paths in the file are relative to. Duplicate keys, aliases, more than 1 MiB, 32 levels or
  // 20,000 values are refused. A file is added whole or not at all.
  Status add(std::string_view text, const std::string& path);
  // `context` empty: current-context.
  Result<Config> select(const std::string& context) const;

 private:
  struct Entry {
    std::string name;
    std::string file;
    YamlNode body;
  };
  const Entry* find(const std::vector<Entry>& among, const std::string& name) const;
  std::string current_context_;
  std::vector<std::string> files_;
  std::vector<Entry> clusters_, users_, contexts_;
};

// Checks a server's address: http or https, a host, no user, query or fragment; gives it without '/' at the end.
Result<std::string> clean_server(const std::string& server);
bool is_loopback_host(std::string_view host);

}  // namespace bottle::kube

#endif  // CONTROLLER_KUBE_KUBECONFIG_H_
