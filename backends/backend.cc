#include "backends/backend.h"

namespace bottle {

std::atomic<bool> g_cancelled{false};

}  // namespace bottle
