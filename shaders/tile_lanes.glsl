// SPDX-License-Identifier: MIT
// The inner loop of matmul_tile.comp on single lanes, each of which makes PAIRS pairs of rows and
// EACH columns: with fp32, or with dot products of four int8 (INNER_DOT).

#if INNER == INNER_DOT
#extension GL_EXT_spirv_intrinsics : require
// OpSDotKHR of four int8 in a word (its last operand, 0, says so), for compilers that do not know
// GL_EXT_integer_dot_product
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int dot_of_four(uint a, uint b, spirv_literal int format);
#endif

const uint DOWN = gl_WorkGroupSize.x / ACROSS;
const uint PAIRS = ROWS / 2 / ACROSS;
const uint EACH = COLUMNS / DOWN;

vec2 sum[EACH * PAIRS];

// places in the tiles of a lane's pair i (its odd row is ROWS / 2 further) and column j
uint row_of(uint i)
{
    return i * ACROSS + gl_LocalInvocationIndex % ACROSS;
}

uint column_of(uint j)
{
    return j * DOWN + gl_LocalInvocationIndex / ACROSS;
}

void begin()
{
    for (uint i = 0; i < EACH * PAIRS; i++)
        sum[i] = vec2(0);
}

#if INNER == INNER_FLOAT
void multiply()
{
    for (uint q = 0; q < QUADS; q++) {
        vec4 w0[PAIRS], w1[PAIRS];
        for (uint i = 0; i < PAIRS; i++) {
            w0[i] = tile_w[row_of(i) * STRIDE + q];
            w1[i] = tile_w[(row_of(i) + ROWS / 2) * STRIDE + q];
        }
        for (uint j = 0; j < EACH; j++) {
            const vec4 x = tile_x[column_of(j) * STRIDE + q];
            for (uint i = 0; i < PAIRS; i++)
                sum[j * PAIRS + i] += vec2(dot(x, w0[i]), dot(x, w1[i]));
        }
    }
}

#else
int dot_of_sixteen(uvec4 a, uvec4 b)
{
    return dot_of_four(a.x, b.x, 0) + dot_of_four(a.y, b.y, 0) + dot_of_four(a.z, b.z, 0) +
           dot_of_four(a.w, b.w, 0);
}

// A run's sum is below 2^19 and exact as a float.
void multiply()
{
    for (uint r = 0; r < RUNS; r++) {
        ivec2 part[EACH * PAIRS];
        for (uint i = 0; i < EACH * PAIRS; i++)
            part[i] = ivec2(0);
        for (uint v = r * (RUN / 16); v < (r + 1) * (RUN / 16); v++) {
            uvec4 w0[PAIRS], w1[PAIRS];
            for (uint i = 0; i < PAIRS; i++) {
                w0[i] = tile_w[row_of(i) * STRIDE + v];
                w1[i] = tile_w[(row_of(i) + ROWS / 2) * STRIDE + v];
            }
            for (uint j = 0; j < EACH; j++) {
                const uvec4 x = tile_x[column_of(j) * STRIDE + v];
                for (uint i = 0; i < PAIRS; i++)
                    part[j * PAIRS + i] += ivec2(dot_of_sixteen(w0[i], x), dot_of_sixteen(w1[i], x));
            }
        }
        for (uint i = 0; i < PAIRS; i++) {
            const uint at = r * ROWS + row_of(i);
            const vec2 d = vec2(scale_w[at], scale_w[at + ROWS / 2]);
#if HAS_MINIMUM
            const vec2 m = vec2(minimum_w[at], minimum_w[at + ROWS / 2]);
#endif
            for (uint j = 0; j < EACH; j++) {
                sum[j * PAIRS + i] += vec2(part[j * PAIRS + i]) * (d * scale_x[r * COLUMNS + column_of(j)]);
#if HAS_MINIMUM
                sum[j * PAIRS + i] += m * sum_x[r * COLUMNS + column_of(j)];
#endif
            }
        }
    }
}
#endif

void end(uint first_row, uint first_column)
{
    for (uint j = 0; j < EACH; j++)
        for (uint i = 0; i < PAIRS; i++)
            finish(first_column + column_of(j), first_row + 2 * row_of(i), sum[j * PAIRS + i]);
}
