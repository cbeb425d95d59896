#include "net/s2/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace peregrine::net::s2 {
namespace {

// RFC 3720 B.4.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c("", 0), 0u);
  EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0').data(), 32), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff').data(), 32), 0x62a8ab43u);
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) rising.push_back(static_cast<char>(i)), falling.push_back(static_cast<char>(31 - i));
  EXPECT_EQ(crc32c(rising.data(), 32), 0x46dd794eu);
  EXPECT_EQ(crc32c(falling.data(), 32), 0x113fdb5cu);
}

TEST(Crc32c, InstructionAgreesWithTables) {
  std::mt19937 chance(1);
  std::string bytes(4099, '\0');
  for (char& byte : bytes) byte = static_cast<char>(chance());
  for (size_t size = 0; size < 70; ++size)
    for (size_t from = 0; from < 9; ++from)
      ASSERT_EQ(crc32c(bytes.data() + from, size), crc32c_by_table(bytes.data() + from, size)) << from << " " << size;
  EXPECT_EQ(crc32c(bytes.data(), bytes.size()), crc32c_by_table(bytes.data(), bytes.size()));
}

// Around the lengths that go in strands, and begun from what stood before.
TEST(Crc32c, LongInputInAnyPieces) {
  std::mt19937 chance(2);
  std::string bytes(40'000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(chance());
  for (const size_t around : {768u, 6144u, 6912u, 2 * 6144u, 30'000u}) {
    for (size_t size = around - 20; size < around + 20; ++size) {
      const uint32_t whole = crc32c_by_table(bytes.data() + 3, size);
      ASSERT_EQ(crc32c(bytes.data() + 3, size), whole) << size;
      const size_t cut = chance() % size;
      const uint32_t front = crc32c(bytes.data() + 3, cut);
      ASSERT_EQ(crc32c(bytes.data() + 3 + cut, size - cut, front), whole) << size << " " << cut;
      ASSERT_EQ(crc32c_by_table(bytes.data() + 3 + cut, size - cut, front), whole) << size << " " << cut;
    }
  }
}

}  // namespace
}  // namespace peregrine::net::s2
