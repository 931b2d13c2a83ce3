#pragma once
#include <array>
#include <cstdint>

#include "frame_view.h"

namespace rbc {

// The source of the size of a cell.
enum class CellSizeFrom : int32_t { kNone = 0, kRound = 1, kOutlines = 2 };

// Measures of a frame without a network. Lengths are in frame px.
struct FieldMeasure {
  CellSizeFrom from = CellSizeFrom::kNone;
  double cell_px = 0.0;  // root of the area of a red cell's box, median; 0 for none
  // share of all places on outlines whose arcs agree with cell_px within a quarter
  double confidence = 0.0;
  int32_t round_count = 0;  // round components clear of the border
  double round_px = 0.0;    // their median size; 0 for none
  double round_spread = 0.0;  // half the distance between their quartiles over the median
  int32_t arc_count = 0;    // arcs on the outlines of cells
  double arc_px = 0.0;      // their median diameter; 0 for none
  double arc_spread = 0.0;
  std::array<int32_t, 4> lit_box{};  // x0 y0 x1 y1 of the lit part
  double lit_share = 0.0;   // of the frame
  bool surround = false;    // whether the frame shows more than the lit part
  std::array<double, 3> background{};  // grey levels between the cells
  std::array<double, 3> density{};     // mean optical density of the cells, base 10
  double foreground = 0.0;    // share of the lit part that cells cover
  double edge_px = 0.0;       // width of the edge of a cell; 0 for none
  double scale = 1.0;         // frame px per px at which it was measured
};

// Measures one frame. Time and memory are bounded: the frame is read once or twice, and worked on
// at some 360 by 480 px, up to five times finer or coarser where cells are small on large frames.
FieldMeasure measure_field_cpu(const FrameView& frame);

}  // namespace rbc
