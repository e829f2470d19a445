// A request of the API server, with what is common to ours.
#ifndef CONTROLLER_RECONCILE_REQUEST_H_
#define CONTROLLER_RECONCILE_REQUEST_H_

#include <string>
#include <utility>

#include "controller/kube/client.h"

namespace bottle::reconcile {

inline kube::Request request_of(std::string method, std::string path, std::string_view content_type = {}) {
  kube::Request r;
  r.method = std::move(method);
  r.path = std::move(path);
  r.content_type = content_type;
  return r;
}

}  // namespace bottle::reconcile

#endif  // CONTROLLER_RECONCILE_REQUEST_H_
