// What the two servers of the controller say. Any thread.
#ifndef CONTROLLER_OPS_ENDPOINTS_H_
#define CONTROLLER_OPS_ENDPOINTS_H_

#include <functional>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "controller/ops/http_server.h"

namespace bottle::ops {

// /healthz: the process is there. /readyz: 200 when `waiting_for` gives nothing, else 503 with what it gives ("the cache of bottles").
// Both are free of secrets and open to whoever reaches the port.
HttpServer::Handler probes(std::function<std::vector<std::string>()> waiting_for);

// /metrics in the text format 0.0.4. `registry` outlives the server.
HttpServer::Handler metrics(const metrics::Registry& registry);

}  // namespace bottle::ops

#endif  // CONTROLLER_OPS_ENDPOINTS_H_
