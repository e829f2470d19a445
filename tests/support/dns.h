// The name server of the test world: answers *.bottle.test from a table over UDP and TCP, and reports every question.
#ifndef TESTS_SUPPORT_DNS_H_
#define TESTS_SUPPORT_DNS_H_

#include <functional>
#include <string>

namespace world {

class DnsServer {
 public:
  using Report = std::function<void(const std::string& name, int type, bool tcp)>;
  DnsServer(std::string address, Report report) : address_(std::move(address)), report_(std::move(report)) {}
  bool start();  // two threads that live as long as the process

 private:
  std::string answer(const std::string& query, bool tcp);
  std::string address_;
  Report report_;
};

}  // namespace world

#endif  // TESTS_SUPPORT_DNS_H_
