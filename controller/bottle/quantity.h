// Kubernetes quantities: "10Gi", "500m", "1.5", "2e3". Pure; any thread.
#ifndef CONTROLLER_BOTTLE_QUANTITY_H_
#define CONTROLLER_BOTTLE_QUANTITY_H_

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace bottle {

// The quantity times `scale` (1 for bytes, 1000 for milli-CPUs), rounded up as Kubernetes does. Zero, signs and what
// does not fit are errors.
Result<int64_t> parse_quantity(std::string_view text, int64_t scale);

}  // namespace bottle

#endif  // CONTROLLER_BOTTLE_QUANTITY_H_
