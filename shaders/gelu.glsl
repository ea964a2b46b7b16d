// SPDX-License-Identifier: MIT
// The tanh form of GELU: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel 2016.
// tanh(u) = 1 - 2 / (exp(2u) + 1): the clamp keeps exp finite where tanh is 1 in fp32 anyhow.
float gelu(float x)
{
    const float u = min(0.79788456080286536 * (x + 0.044715 * x * x * x), 30.0);
    return x * (1.0 - 1.0 / (exp(2.0 * u) + 1.0));
}
