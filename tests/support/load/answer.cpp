#include "answer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

namespace continuity::load {
namespace {

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

std::optional<std::uint64_t> parse_number(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (end.ec != std::errc{} || end.ptr == text.data()) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

Answer::Answer(const Exchange& exchange)
    : exchange_(&exchange), part_(exchange.is_http ? Part::status_line : Part::text) {}

void Answer::add(std::string_view bytes) {
  size_ += bytes.size();
  while (!bytes.empty() && !is_decided()) {
    take(bytes);
  }
}

Verdict Answer::verdict() const {
  if (part_ == Part::wrong) {
    return {Outcome::other, problem_};
  }
  if (size_ == 0) {
    return {Outcome::closed, "closed without an answer"};
  }
  if (part_ != Part::whole && part_ != Part::body_until_end) {
    return {Outcome::cut, fmt::format("closed after {} bytes of an answer", size_)};
  }
  if (exchange_->is_http && status_ != exchange_->status) {
    return {Outcome::other, fmt::format("status {}", status_)};
  }
  return {};
}

void Answer::take(std::string_view& bytes) {
  switch (part_) {
    case Part::text:
      return take_text(bytes);
    case Part::counted_body:
      return take_counted(bytes, Part::whole);
    case Part::chunk:
      return take_counted(bytes, Part::chunk_end);
    case Part::body_until_end:
      return bytes.remove_prefix(bytes.size());
    default:
      if (const auto line = take_line(bytes)) {
        read_line(*line);
      }
  }
}

void Answer::take_text(std::string_view& bytes) {
  const auto overlap = std::min(unread_.size(), exchange_->expect.size());
  const auto begin = unread_.size() - overlap;
  unread_ += bytes;
  bytes.remove_prefix(bytes.size());
  if (unread_.find(exchange_->expect, begin) != std::string::npos) {
    part_ = Part::whole;
  }
}

void Answer::take_counted(std::string_view& bytes, Part next) {
  const auto taken = std::min<std::uint64_t>(missing_, bytes.size());
  bytes.remove_prefix(taken);
  missing_ -= taken;
  if (missing_ == 0) {
    part_ = next;
  }
}

std::optional<std::string> Answer::take_line(std::string_view& bytes) {
  const auto end = bytes.find('\n');
  unread_ += bytes.substr(0, end);
  bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
  if (end == std::string_view::npos) {
    return std::nullopt;
  }
  if (unread_.ends_with('\r')) {
    unread_.pop_back();
  }
  return std::exchange(unread_, {});
}

void Answer::read_line(const std::string& line) {
  switch (part_) {
    case Part::status_line:
      return read_status_line(line);
    case Part::header:
      return line.empty() ? end_head() : read_header(line);
    case Part::chunk_size:
      return read_chunk_size(line);
    case Part::chunk_end:
      part_ = Part::chunk_size;
      return;
    default:  // the trailer, which an empty line ends
      part_ = line.empty() ? Part::whole : part_;
  }
}

void Answer::read_status_line(const std::string& line) {
  constexpr std::string_view version = "HTTP/1.x ";
  const bool is_http = line.starts_with("HTTP/1.") && line.size() >= version.size() + 3;
  const auto status =
      is_http ? parse_number(std::string_view(line).substr(version.size(), 3), 10) : std::nullopt;
  if (!status) {
    return reject(fmt::format("no HTTP answer: {}", line.substr(0, 40)));
  }
  status_ = static_cast<int>(*status);
  part_ = Part::header;
}

void Answer::read_header(const std::string& line) {
  const std::string header = in_lower_case(line);
  constexpr std::string_view length = "content-length:";
  if (header.starts_with(length)) {
    const auto digits = header.find_first_not_of(" \t", length.size());
    length_ = digits == std::string::npos
                  ? std::nullopt
                  : parse_number(std::string_view(header).substr(digits), 10);
    if (!length_) {
      reject(line);
    }
  } else if (header.starts_with("transfer-encoding:")) {
    is_chunked_ = header.find("chunked") != std::string::npos;
  }
}

void Answer::end_head() {
  constexpr int no_content = 204;
  constexpr int not_modified = 304;
  if (status_ == no_content || status_ == not_modified) {
    part_ = Part::whole;
  } else if (is_chunked_) {
    part_ = Part::chunk_size;
  } else if (length_) {
    missing_ = *length_;
    part_ = missing_ == 0 ? Part::whole : Part::counted_body;
  } else {
    part_ = Part::body_until_end;
  }
}

void Answer::read_chunk_size(const std::string& line) {
  const auto size = parse_number(line, 16);
  if (!size) {
    return reject(fmt::format("no chunk size: {}", line.substr(0, 40)));
  }
  missing_ = *size;
  part_ = missing_ == 0 ? Part::trailer : Part::chunk;
}

void Answer::reject(const std::string& why) {
  part_ = Part::wrong;
  problem_ = why;
}

}  // namespace continuity::load
