# SPDX-License-Identifier: MIT
# Writes a SPIR-V file as the words of a C array: cmake -DIN=x.spv -DOUT=x.inc -P embed.cmake
file(READ "${IN}" words HEX)
string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," words "${words}")
string(REGEX REPLACE "(...........)(...........)(...........)(...........)(...........)(...........)(...........)(...........)"
    "\\1\\2\\3\\4\\5\\6\\7\\8\n" words "${words}")
file(WRITE "${OUT}" "${words}\n")
