// Numbers in their order, each once: to look thousands up in.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

namespace continuity {

template <typename T>
std::vector<T> sorted(std::vector<T> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

template <typename T>
std::vector<T> sorted(std::span<const T> numbers) {
  return sorted(std::vector<T>(numbers.begin(), numbers.end()));
}

// Among sorted ones.
template <typename T>
bool is_in(const std::vector<T>& numbers, T number) {
  return std::binary_search(numbers.begin(), numbers.end(), number);
}

}  // namespace continuity
