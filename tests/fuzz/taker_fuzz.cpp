// A successor, to which a predecessor says whatever it likes, with whatever descriptors:
// what it takes is what it wanted, it owns nothing that it was not told to be retired,
// and nothing stays open that came to it.
#include "core/taker.hpp"
#include "descriptors.hpp"
#include "fuzz.hpp"
#include "unit/conversation.hpp"

#include <exception>
#include <sys/socket.h>

namespace continuity::fuzz {
namespace {

// Answers each message by the steps of its script up to the next "/".
class Impostor {
 public:
  Impostor(test::World& world, Script& script)
      : world_(world),
        script_(script),
        rendezvous_(world.open_rendezvous(libc_sys())),
        known_{test::described(descriptors_.listener()),
               test::described(descriptors_.other_listener())} {
    auto door = rendezvous_.publish("server", 66);
    require(door.has_value(), "a door can be made");
    door_ = std::move(*door);
    world_.on_wait = [this] { run(); };
  }
  ~Impostor() { world_.on_wait = nullptr; }
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;

  [[nodiscard]] const Listener& wanted() const { return known_[0]; }
  [[nodiscard]] bool may_be_followed() const { return has_retired_ || !door_.is_open(); }

 private:
  void run() {
    if (door_.is_open() && channels_.size() < most) {
      const int fd = ::accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        channels_.emplace_back(libc_sys(), test::own(fd));
      }
    }
    for (Channel& channel : channels_) {
      while (channel.is_open() && channel.receive(0)) {
        answer(channel);
      }
    }
  }
  void answer(Channel& channel) {
    char step = 0;
    while ((step = script_.step()) != 0 && step != '/') {
      switch (step) {
        case 'b':
          send_with(channel.fd(), script_.bytes(), attached_);
          attached_.clear();
          break;
        case 'd':
          if (attached_.size() < most_descriptors) {
            attached_.push_back(descriptors_.at(script_.number()));
          }
          break;
        case 'x':
          channel.close();
          return;
        case 'z':
          door_.reset();
          break;
        default:
          if (Script::is_message(step)) {
            say(channel, script_.message(step, known_));
          }
          break;
      }
    }
  }
  void say(Channel& channel, const Message& message) {
    has_retired_ = has_retired_ || message.type == MessageType::retired;
    if (const auto bytes = encode(message); bytes) {
      send_with(channel.fd(), as_text(*bytes), attached_);
    }
    attached_.clear();
  }

  static constexpr std::size_t most = 16;
  test::World& world_;
  Script& script_;
  Rendezvous rendezvous_;
  Descriptors descriptors_;
  std::array<Listener, 2> known_;
  OwnedFd door_;
  std::vector<Channel> channels_;
  std::vector<int> attached_;
  bool has_retired_ = false;
};

void play(test::World& world, Script& script) {
  Impostor impostor(world, script);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  auto claim = taker.claim(rendezvous, impostor.wanted());
  if (claim.found == Taker::Found::claimed) {
    const auto truth = describe_socket(libc_sys(), claim.fd.get());
    require(truth.has_value() && is_listening(libc_sys(), claim.fd.get()) &&
                same_endpoint(truth->address, impostor.wanted().address),
            "what has been claimed listens at the address that was wanted");
  } else {
    require(!claim.fd.is_open(), "what has not been claimed is not there");
  }
  const bool had_claims = taker.has_claims();
  const auto outcome = taker.become_owner(rendezvous);
  require(!outcome.owner || !had_claims || impostor.may_be_followed(),
          "who becomes the owner was told so, or nobody is there any more");
}

}  // namespace

// The first character: CONTINUITY_BUSY.
void run(Bytes input) {
  const Descriptors made_before_counting;
  const auto before = test::open_descriptors();
  {
    test::World world;
    Script script(input);
    world.options.busy = script.number() % 2 == 0 ? WhenBusy::fail : WhenBusy::wait;
    try {
      play(world, script);
    } catch (const std::runtime_error&) {
      // A wait that somebody chose, and that would never end.
    }
    require(world.taker_sys.open().empty(), "nothing that was received stays open");
  }
  require(test::open_descriptors() == before, "nothing stays open");
}

}  // namespace continuity::fuzz
