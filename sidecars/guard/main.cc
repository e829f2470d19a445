// bottle-guard {hold|init|apply|counters}: closes the bottle's network namespace, proves it, and (hold) keeps it.
//
// Prints one JSON line and nothing else: {"guard":"verified",…} or {"guard":"failed","reason":…} with exit status 1.
// hold: the container whose namespace the others join; it pauses without any privilege until SIGTERM or SIGINT.
// init: the first container of a pod, which holds the namespace itself: also writes the trust files, once it has no privilege left.
// apply: replaces the rules of a running bottle; takes them from BOTTLE_GUARD_RULES if that is set, for a container that can mount nothing.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/digest.h"
#include "base/file.h"
#include "sidecars/guard/nft.h"
#include "sidecars/guard/privileges.h"
#include "sidecars/guard/rules.h"
#include "sidecars/guard/trust.h"

namespace {

constexpr char kUsage[] =
    "usage: bottle-guard {hold|apply|counters} [--rules FILE] [--resolv-conf FILE]\n"
    "       bottle-guard init [--rules FILE] [--resolv-conf FILE] [--ca FILE] [--roots FILE] [--trust-in DIR] [--upstream-in DIR]\n"
    "                         [--trust-out DIR] [--upstream-out DIR]\n"
    "apply takes the rules from the environment variable BOTTLE_GUARD_RULES, if that is set.\n";

using bottle::Status;
using nlohmann::json;

void print(const json& line) {
  const std::string text = line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  // In a pod the kubelet gives this file, and what is in it goes into the container's status: also what was verified.
  if (std::FILE* message = std::fopen("/dev/termination-log", "r+e")) {
    std::fwrite(text.data(), 1, text.size() - 1, message);
    std::fclose(message);
  }
}

int fail(const Status& s) {
  print({{"guard", "failed"}, {"code", bottle::code_name(s.code())}, {"reason", s.message()}});
  return 1;
}

int counters() {
  auto r = bottle::guard::run_nft({"-j", "list", "counters", "table", "inet", std::string(bottle::guard::kTable)});
  if (!r) return fail(r.status());
  if (r->exit_code != 0) return fail({bottle::Code::kNotFound, "the guard's table is not in this network namespace"});
  auto text = bottle::guard::counters_json(r->out);
  if (!text) return fail(text.status());
  std::puts(text->c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string rules_path = "/etc/bot-bottle/guard/rules.nft", resolv_path = "/etc/resolv.conf";
  bottle::guard::TrustPaths trust;
  std::map<std::string, std::string*> flags = {{"--rules", &rules_path}, {"--resolv-conf", &resolv_path}};
  const std::string mode = argc > 1 ? argv[1] : "";
  bool usage = mode != "hold" && mode != "init" && mode != "apply" && mode != "counters";
  if (mode == "init")
    flags.insert({{"--ca", &trust.ca}, {"--roots", &trust.roots}, {"--trust-in", &trust.trust_in}, {"--upstream-in", &trust.upstream_in},
                  {"--trust-out", &trust.trust_out}, {"--upstream-out", &trust.upstream_out}});
  for (int i = 2; i < argc && !usage; i += 2) {
    const auto flag = flags.find(argv[i]);
    usage = i + 1 >= argc || flag == flags.end();
    if (!usage) *flag->second = argv[i + 1];
  }
  if (usage) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  if (mode == "counters") return counters();

  // As process 1 of a container a signal without a handler is ignored: block now, take it with sigwait below.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);

  const char* given = mode == "apply" ? std::getenv("BOTTLE_GUARD_RULES") : nullptr;
  auto rules = given ? bottle::Result<std::string>(std::string(given)) : bottle::read_file(rules_path, 1u << 20);
  if (!rules) return fail(rules.status().with_context("read the guard's rules"));
  auto resolv = bottle::read_file(resolv_path, 64u << 10);
  if (!resolv) return fail(resolv.status().with_context("read the resolver's addresses"));
  const auto resolvers = bottle::guard::parse_resolvers(*resolv);
  if (Status s = bottle::guard::load_and_verify(*rules, resolvers); !s) return fail(s);

  json line = {{"guard", "verified"},
               {"rulesSha256", "sha256:" + bottle::sha256_hex(*rules)},
               {"resolvers", resolvers},
               {"vsock", bottle::guard::vsock_state()}};
  if (mode == "apply") {
    print(line);
    return 0;
  }
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  auto uid = bottle::guard::drop_privileges();
  if (!uid) return fail(uid.status().with_context("drop the guard's privileges"));
  line["uid"] = *uid;  // 0 where the container may not change it; it holds no capability either way
  if (mode == "init") {
    // What parses certificates runs without the capability that could open the network again.
    if (Status s = bottle::guard::write_trust(trust); !s) return fail(s);
    print(line);
    return 0;
  }
  print(line);
  for (int signal = 0;;)
    if (sigwait(&stop, &signal) == 0) return 0;
}
