// A predecessor, to which several peers say whatever they like, with whatever
// descriptors: it serves until it has been asked to retire, and afterwards no more; what
// it sends can be read; nothing stays open that came to it.
#include "core/holder.hpp"
#include "descriptors.hpp"
#include "fuzz.hpp"
#include "unit/conversation.hpp"

#include <sys/socket.h>

namespace continuity::fuzz {
namespace {

class Peers {
 public:
  explicit Peers(test::World& world) : world_(world) {}

  void connect() {
    Rendezvous rendezvous = world_.open_rendezvous(world_.taker_sys);
    auto found = rendezvous.connect_all(99, world_.log);
    if (!found.empty() && channels_.size() < most) {
      channels_.push_back(std::move(found.front().channel));
      current_ = channels_.size() - 1;
    }
  }
  void choose(std::size_t which) { current_ = channels_.empty() ? 0 : which % channels_.size(); }
  void attach(std::size_t kind, std::size_t count) {
    attached_.assign(std::min(count, most_descriptors), descriptors_.at(kind));
  }
  void send(std::string_view bytes) {
    if (current_ < channels_.size() && channels_[current_].is_open()) {
      send_with(channels_[current_].fd(), bytes, attached_);
      attached_.clear();
    }
  }
  void send(const Message& message) {
    if (const auto bytes = encode(message); bytes) {
      send(as_text(*bytes));
    }
  }
  void close() {
    if (current_ < channels_.size()) {
      channels_[current_].close();
    }
  }
  // Whatever has been answered is a message; descriptors travel with two kinds.
  void listen() {
    for (Channel& channel : channels_) {
      while (channel.is_open()) {
        const auto received = channel.receive(0);
        if (!received) {
          require(received.error().code != EPROTO && received.error().code != EPROTONOSUPPORT,
                  "what a predecessor says is a message");
          if (received.error().code != ETIMEDOUT) {
            channel.close();
          }
          break;
        }
        const MessageType type = received->message.type;
        require(received->fds.empty() || type == MessageType::grant || type == MessageType::welcome,
                "descriptors travel with a grant or a welcome");
        require(type != MessageType::grant || received->fds.size() == received->message.ids.size(),
                "a grant has as many descriptors as it names");
      }
    }
  }

 private:
  static constexpr std::size_t most = 8;
  test::World& world_;
  Descriptors descriptors_;
  std::vector<Channel> channels_;
  std::size_t current_ = 0;
  std::vector<int> attached_;
};

void check(const test::World& world, const test::Predecessor& predecessor) {
  const HolderPhase phase = predecessor.holder.phase();
  if (phase == HolderPhase::active || phase == HolderPhase::granted) {
    require(predecessor.accepts(0) && predecessor.accepts(1), "it serves until it is followed");
  }
  require(world.killed.empty() || world.logged("CONTINUITY_READY_TIMEOUT"),
          "a peer is told to end only when it was not ready in time");
}

void play(Script& script, test::World& world, test::Predecessor& predecessor) {
  constexpr int most_steps = 64;
  Peers peers(world);
  for (int i = 0; i < most_steps && !script.at_end(); ++i) {
    const char step = script.step();
    switch (step) {
      case 'o':
        peers.connect();
        break;
      case 'c':
        peers.choose(script.number());
        break;
      case 'x':
        peers.close();
        break;
      case 'b':
        peers.send(script.bytes());
        break;
      case 'd': {
        const unsigned kind = script.number();
        peers.attach(kind, script.number());
        break;
      }
      case 'w':
        world.pass((script.number() % 10) * second);
        break;
      default:
        if (Script::is_message(step)) {
          peers.send(script.message(step));
        }
        break;
    }
    world.settle();
    peers.listen();
  }
  check(world, predecessor);  // while the conversations are open
}

}  // namespace

void run(Bytes input) {
  const Descriptors made_before_counting;
  const auto before = test::open_descriptors();
  {
    test::World world;
    // Not TCP: a thousand connections a second would leave no port for anybody else.
    const std::string place = "unix:" + world.directory.path();
    test::Predecessor predecessor(world, {place + "/one", place + "/two"});
    Script script(input);
    play(script, world, predecessor);
  }
  require(test::open_descriptors() == before, "nothing stays open");
}

}  // namespace continuity::fuzz
