// What a service says to who manages it (sd_notify): lines of VARIABLE=value.
#pragma once

#include <string_view>

namespace continuity {

struct Notice {
  bool is_ready = false;    // READY=1
  bool of_service = false;  // the state of the whole service, which the owner alone knows
};

Notice read_notice(std::string_view text);

}  // namespace continuity
