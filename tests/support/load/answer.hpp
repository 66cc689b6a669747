// Decides when an answer is whole, from the bytes as they come in.
#pragma once

#include "outcome.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace continuity::load {

class Answer {
 public:
  // The exchange must outlive the answer.
  explicit Answer(const Exchange& exchange);
  explicit Answer(const Exchange&&) = delete;

  void add(std::string_view bytes);
  // Nothing more is needed to judge it.
  [[nodiscard]] bool is_decided() const { return part_ == Part::whole || part_ == Part::wrong; }
  // Of a decided answer, or of one after which the peer has closed.
  [[nodiscard]] Verdict verdict() const;
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  // The part of an answer that the next byte belongs to.
  enum class Part : unsigned char {
    text,
    status_line,
    header,
    counted_body,
    body_until_end,
    chunk_size,
    chunk,
    chunk_end,
    trailer,
    whole,
    wrong,
  };

  void take(std::string_view& bytes);
  void take_text(std::string_view& bytes);
  void take_counted(std::string_view& bytes, Part next);
  std::optional<std::string> take_line(std::string_view& bytes);
  void read_line(const std::string& line);
  void read_status_line(const std::string& line);
  void read_header(const std::string& line);
  void end_head();
  void read_chunk_size(const std::string& line);
  void reject(const std::string& why);

  const Exchange* exchange_;
  Part part_;
  std::size_t size_ = 0;
  std::string unread_;  // a line that has only begun, or the text so far
  int status_ = 0;
  std::optional<std::uint64_t> length_;
  bool is_chunked_ = false;
  std::uint64_t missing_ = 0;  // bytes of the counted body or chunk
  std::string problem_;
};

}  // namespace continuity::load
