// The second layer, for clusters whose network enforces it: it still stands if a kernel's netfilter should not.
#include <set>

#include "backends/kubernetes/render_internal.h"

namespace bottle::kubernetes {
namespace {

// The ranges that the guard refuses (controller/plan/guard_rules.cc; a test compares). ::ffff:0:0/96 is not among them: the API reads it as
// an IPv4 range and refuses it, and no such packet is ever on a wire.
constexpr const char* kRefused4[] = {"0.0.0.0/8",      "10.0.0.0/8",    "100.64.0.0/10", "127.0.0.0/8",    "168.63.129.16/32",
                                     "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",  "192.168.0.0/16", "198.18.0.0/15",
                                     "224.0.0.0/3"};
constexpr const char* kRefused6[] = {"::/96",     "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
                                     "fc00::/7", "fe80::/10",    "fec0::/10",      "ff00::/8"};

Json port(const char* protocol, uint16_t number) { return {{"protocol", protocol}, {"port", number}}; }

Json block(const std::string& cidr) { return {{"ipBlock", {{"cidr", cidr}}}}; }

template <size_t N>
Json block_except(const char* cidr, const char* const (&except)[N]) {
  return {{"ipBlock", {{"cidr", cidr}, {"except", Json(except)}}}};
}

}  // namespace

Json render_network_policy(const BottlePlan& plan, const Owner& owner) {
  std::set<uint16_t> ports;
  if (plan.routes.mode == policy::Mode::kEnforce)
    for (const auto& route : plan.routes.routes) ports.insert(route.ports.begin(), route.ports.end());

  Json egress = Json::array();
  if (!ports.empty()) {  // else nothing leaves, not even a look-up
    egress.push_back({{"ports", Json::array({port("TCP", 53), port("UDP", 53)})}});
    Json to = Json::array({block_except("0.0.0.0/0", kRefused4), block_except("::/0", kRefused6)});
    for (const auto& cidr : plan.routes.allow_cidrs) to.push_back(block(cidr));
    Json route_ports = Json::array();
    for (uint16_t p : ports) route_ports.push_back(port("TCP", p));
    egress.push_back({{"to", to}, {"ports", route_ports}});
  }
  Json object = child("networking.k8s.io/v1", "NetworkPolicy", network_policy_name(plan.name), owner);
  object["spec"] = {{"podSelector", {{"matchLabels", selector_labels(plan.name)}}},
                    {"policyTypes", {"Ingress", "Egress"}},
                    {"ingress", Json::array({{{"ports", Json::array({port("TCP", kEgressHealthPort)})}}})},
                    {"egress", egress}};
  seal(object);
  return object;
}

}  // namespace bottle::kubernetes
