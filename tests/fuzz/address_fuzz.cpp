// Addresses: from texts, and as a peer or the kernel may give them, byte by byte.
#include "core/address.hpp"
#include "fuzz.hpp"

#include <array>

namespace continuity::fuzz {
namespace {

void check_text(std::string_view text) {
  const auto parsed = parse_address(text);
  if (!parsed) {
    return;
  }
  require(parsed->is_supported(), "what is parsed is supported");
  const auto again = parse_address(to_string(*parsed));
  require(again.has_value() && same_endpoint(*parsed, *again), "a text leads back to its address");
}

void check_pair(const Address& one, const Address& other) {
  const bool same = same_endpoint(one, other);
  // NOLINTNEXTLINE(readability-suspicious-call-argument): the other way round
  require(same == same_endpoint(other, one), "to be the same has no direction");
  const bool came = came_through(one, other);
  require(came || !same, "a connection comes through a listener at its own address");
  require(CameThrough(std::array{other})(one) == came, "one among many is found as by itself");
  if (same && !one.is_unix()) {
    require(endpoint_hash(one) == endpoint_hash(other), "the same address has the same hash");
  }
}

}  // namespace

void run(Bytes input) {
  check_text(as_text(input));
  const auto make = [](Bytes bytes) {
    return Address(reinterpret_cast<const sockaddr*>(bytes.data()),
                   static_cast<socklen_t>(bytes.size()));
  };
  const Address one = make(input.first(input.size() / 2));
  const Address other = make(input.subspan(input.size() / 2));
  for (const Address& address : {one, other}) {
    require(address.unix_path().size() + address.abstract_name().size() <= address.length,
            "a name lies within its address");
    check_text(to_string(address));
    if (address.is_supported()) {
      require(same_endpoint(address, address), "an address is the same as itself");
    }
  }
  if (one.is_supported() && other.is_supported()) {
    check_pair(one, other);
  }
}

}  // namespace continuity::fuzz
