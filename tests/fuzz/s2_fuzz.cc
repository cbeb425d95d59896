// S2: any bytes, decoded whole and in two pieces, must give the same bytes and the same error, and never read beyond
// what was given. What the fuzzer gives is then taken for plain bytes: encoded at each level it must come back.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "net/s2/decoder.h"
#include "net/s2/encoder.h"

namespace {

using namespace peregrine::net::s2;

std::string decode(Decoder& decoder, const char* data, size_t size) {
  const std::vector<char> own(data, data + size);  // exactly as long: one byte too far is seen
  std::string_view in(own.data(), own.size()), out;
  std::string bytes;
  DecodeStatus status;
  while ((status = decoder.next(in, out)) == DecodeStatus::kBytes) {
    if (out.empty()) std::abort();
    bytes.append(out);
  }
  if (status == DecodeStatus::kMore && !in.empty()) std::abort();
  return bytes;
}

void require(bool condition) {
  if (!condition) std::abort();
}

void cut_anywhere(const std::string& stream, size_t cut) {
  Decoder one(1 << 16), two(1 << 16);
  const std::string whole = decode(one, stream.data(), stream.size());
  std::string split = decode(two, stream.data(), cut);
  split += decode(two, stream.data() + cut, stream.size() - cut);
  require(whole == split && one.error() == two.error());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const uint8_t mode = data[0];
  const size_t cut = (data[1] | data[2] << 8) % (size - 2);
  const std::string bytes(reinterpret_cast<const char*>(data) + 3, size - 3);

  if (mode % 3 == 0) {
    cut_anywhere(bytes, cut);
  } else if (mode % 3 == 1) {  // elements of a block: a fuzzer never guesses a CRC, so it is not asked to
    const std::string stream = std::string("\xff\x06\x00\x00S2sTwO\x00", 11) + static_cast<char>(bytes.size() + 4) +
                               static_cast<char>((bytes.size() + 4) >> 8) +
                               static_cast<char>((bytes.size() + 4) >> 16) + "crc_" + bytes;
    Decoder decoder(1 << 16);
    decode(decoder, stream.data(), stream.size());
    cut_anywhere(stream, cut);
  } else {
    static Encoder encoder;  // whose tables hold what came before
    EncoderStream stream{.level = static_cast<Level>(mode / 3 % 4)};
    const iovec pieces[] = {{const_cast<char*>(bytes.data()), cut},
                            {const_cast<char*>(bytes.data()) + cut, bytes.size() - cut}};
    const auto out = std::make_unique_for_overwrite<char[]>(Encoder::max_encoded(bytes.size()));
    const size_t written = encoder.encode(stream, pieces, out.get());
    Decoder decoder;
    require(decode(decoder, out.get(), written) == bytes && decoder.at_boundary());
  }
  return 0;
}
