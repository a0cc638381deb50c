import { expect, test } from "vitest";
import { cudaProblem } from "../../src/backend/native-load.js";

const machine = (card: boolean, ...libraries: string[]) => ({
  card,
  has: (library: string) => libraries.includes(library),
});

test("without a card's device file, the card is what is missing", () => {
  expect(cudaProblem(machine(false)).message).toContain("/dev/nvidia0");
});

test("a machine with CUDA 13 alone is told so, and which packages bring CUDA 12", () => {
  const { message, mend } = cudaProblem(machine(true, "libcudart.so.13", "libcublas.so.13", "libcudnn.so.9"));
  expect(message).toContain("libcudart.so.12");
  expect(message).toContain("CUDA 13");
  expect(mend).toMatch(/pip install .*nvidia-cuda-runtime-cu12.*nvidia-cudnn-cu12/);
});

test("the first library that is missing is named", () => {
  expect(cudaProblem(machine(true, "libcudart.so.12", "libcublas.so.12")).message).toContain("libcudnn.so.9");
  expect(cudaProblem(machine(true, "libcudart.so.12", "libcublas.so.12")).message).not.toContain("CUDA 13");
});

test("with everything there, TensorFlow itself is what to look at", () => {
  expect(cudaProblem(machine(true, "libcudart.so.12", "libcublas.so.12", "libcudnn.so.9")).message).toBe(
    "TensorFlow finds no card it can use",
  );
});
