#include "sidecars/guard/nft.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sidecars/guard/rules.h"

namespace bottle::guard {
namespace {

constexpr int kTimeoutMs = 20'000;
constexpr size_t kMaxOutput = 8u << 20;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Status os_error(const std::string& what) { return {Code::kInternal, what + ": " + std::strerror(errno)}; }

Result<std::string> whole(int fd) {
  std::string out;
  char buffer[16384];
  off_t at = 0;
  for (ssize_t n; (n = pread(fd, buffer, sizeof buffer, at)) != 0; at += n) {
    if (n < 0 && errno == EINTR) {
      n = 0;
      continue;
    }
    if (n < 0) return os_error("read nft's output");
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > kMaxOutput) return {Code::kExhausted, "nft printed more than 8 MiB"};
  }
  return out;
}

// nft's first complaint without the source excerpt.
std::string first_line(const std::string& err) {
  const std::string line = err.substr(0, err.find('\n'));
  return line.empty() ? "nft gave no reason" : line;
}

// What a kernel can lack, asked with `nft --check` (the kernel builds the rules and throws them away), the simplest first.
struct Probe {
  const char* rule;
  const char* missing;
};
constexpr Probe kProbes[] = {
    {"counter", "nf_tables with the inet family (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)"},
    {"meta skuid 10001 accept", "nf_tables' meta skuid (CONFIG_NF_TABLES, module nf_tables)"},
    {"ct state established accept", "connection tracking (modules nf_conntrack and nft_ct)"},
    {"reject with icmpx type admin-prohibited", "nft_reject_inet (CONFIG_NFT_REJECT_INET)"},
    {"tcp dport { 80, 90-99 } accept", "nf_tables sets (CONFIG_NF_TABLES, module nf_tables)"},
};

Status explain(const NftOutput& failed) {
  if (failed.err.find("Operation not permitted") != failed.err.npos)
    return {Code::kPermission, "nft may not change the rules: the guard needs the capability NET_ADMIN in its network namespace"};
  for (const Probe& p : kProbes) {
    auto r = run_nft({"--check", "-f", "-"}, std::string("table inet bottle_guard_probe {\nchain c {\ntype filter hook output priority 0;\n") +
                                                 p.rule + "\n}\n}\n");
    if (r && r->exit_code != 0)
      return {Code::kUnsupported, "the kernel cannot hold the guard's rules: it lacks " + std::string(p.missing) +
                                      "; load the module on the host (nft: " + first_line(r->err) + ")"};
  }
  return {Code::kInvalid, "nft refuses the guard's rules: " + first_line(failed.err)};
}

Result<std::string> list(std::string_view table) {
  auto r = run_nft({"-j", "list", "table", "inet", std::string(table)});
  if (!r) return r.status();
  if (r->exit_code != 0) return {Code::kConflict, "table " + std::string(table) + " cannot be read back: " + first_line(r->err)};
  return std::move(r->out);
}

}  // namespace

Result<NftOutput> run_nft(const std::vector<std::string>& args, std::string_view input) {
  // Memory files, not pipes: no output size can make the two processes wait for each other, and no writable disk is needed.
  Fd in(memfd_create("nft-in", MFD_CLOEXEC)), out(memfd_create("nft-out", MFD_CLOEXEC)), err(memfd_create("nft-err", MFD_CLOEXEC));
  if (in.get() < 0 || out.get() < 0 || err.get() < 0) return os_error("memfd_create");
  for (std::string_view rest = input; !rest.empty();) {
    const ssize_t n = write(in.get(), rest.data(), rest.size());
    if (n < 0) return os_error("write nft's input");
    rest.remove_prefix(static_cast<size_t>(n));
  }
  lseek(in.get(), 0, SEEK_SET);

  std::vector<std::string> words = {"nft"};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
  char* env[] = {path, locale, nullptr};

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.get(), 0);
  posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, err.get(), 2);
  pid_t pid = -1;
  const int rc = posix_spawn(&pid, "/usr/sbin/nft", &actions, nullptr, argv.data(), env);
  posix_spawn_file_actions_destroy(&actions);
  if (rc != 0) return {Code::kUnsupported, std::string("cannot run /usr/sbin/nft: ") + std::strerror(rc)};

  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));  // kernel 5.3; without it the wait has no limit
  if (pidfd.get() >= 0) {
    pollfd p{pidfd.get(), POLLIN, 0};
    int ready;
    do ready = poll(&p, 1, kTimeoutMs);
    while (ready < 0 && errno == EINTR);
    if (ready == 0) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
      return {Code::kTimeout, "nft did not answer within 20 s"};
    }
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return os_error("wait for nft");
  NftOutput result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  auto o = whole(out.get()), e = whole(err.get());
  if (!o) return o.status();
  if (!e) return e.status();
  result.out = *std::move(o);
  result.err = *std::move(e);
  return result;
}

Status load(std::string_view rules, const std::vector<std::string>& resolvers) {
  auto text = render_transaction(rules, resolvers);
  if (!text) return text.status();
  auto r = run_nft({"-f", "-"}, *text);
  if (!r) return r.status();
  return r->exit_code == 0 ? Status::ok() : explain(*r);
}

Status verify(std::string_view rules) {
  auto live = list(kTable);
  if (!live) return live.status();
  auto reference = list(kReferenceTable);
  if (!reference) return reference.status();
  if (Status s = compare_tables(*live, *reference); !s) return s;
  return compare_with_text(*live, rules);
}

Status drop_reference() {
  auto r = run_nft({"delete", "table", "inet", std::string(kReferenceTable)});
  if (!r) return r.status();
  if (r->exit_code != 0) return {Code::kInternal, "cannot delete the reference table: " + first_line(r->err)};
  return {};
}

Status probe_in_force() {
  Fd s(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (s.get() < 0) return os_error("socket");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(53);
  inet_pton(AF_INET, "127.0.0.11", &to.sin_addr);
  if (sendto(s.get(), "", 0, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&to), sizeof to) >= 0)
    return {Code::kConflict, "the rules are loaded but a datagram to 127.0.0.11:53 still leaves: netfilter is not in force here"};
  if (errno == EPERM || errno == ECONNREFUSED || errno == ENETUNREACH || errno == EHOSTUNREACH) return {};
  return os_error("send to 127.0.0.11:53");
}

Status load_and_verify(std::string_view rules, const std::vector<std::string>& resolvers) {
  if (Status s = load(rules, resolvers); !s) return s;
  Status verified = verify(rules);
  Status dropped = drop_reference();
  if (!verified) return verified;
  if (!dropped) return dropped;
  return probe_in_force();
}

}  // namespace bottle::guard
