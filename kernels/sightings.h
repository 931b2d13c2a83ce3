#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "field_mask.h"

namespace rbc {

// Everything found in parts of a frame shrunk alike. Lengths are px of those parts.
struct Sightings {
  std::vector<double> round;  // roots of the box areas of oval components clear of the border
  std::vector<double> arcs;   // diameters of arcs on outlines of everything as dense as cells
  int64_t starts = 0;         // places on outlines from which an arc was sought
  // steps of density from pixel to pixel across outlines, as shares of a cell's
  std::vector<double> edges;
  bool any = false;           // whether anything denser than the background was found
  int64_t lit_pixels = 0, cell_pixels = 0;
  double density[3] = {};     // sums over density_pixels: base-10 optical densities of red cells
  int64_t density_pixels = 0;
  std::vector<std::array<uint8_t, 3>> backgrounds;  // of each part
};

// Adds the findings of a part of a frame, already blurred. factor: 1, or less to see fainter cells.
void sight_cells(const SmallFrame& frame, const Mask& lit, double factor, Sightings& seen);

}  // namespace rbc
