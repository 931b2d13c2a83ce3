#include "outlines.h"

#include <algorithm>
#include <cmath>

namespace rbc {
namespace {

constexpr int32_t kStep = 4;
// Places in a stretch; each a quarter more than the one before.
constexpr int32_t kStretches[] = {16, 20, 25, 31, 39, 49, 61, 76, 95, 119, 149, 186, 232, 290, 363, 454};
// A shorter stretch may fail and a longer one fit: the steps between pixels weigh less in it.
constexpr int32_t kPatience = 31;
constexpr int32_t kSmoothing = 2;  // places to each side
constexpr double kLeastTurn = 1.7, kMostError = 0.025, kMostErrorPx = 0.25, kLeastRadiusPx = 3.0;

struct Place {
  double x, y;
  bool cut;  // at the end of what is seen
};

// A mask with a frame of nothing around it, so that every pixel has neighbours.
class Walker {
 public:
  Walker(const Mask& mask, const Mask& clear)
      : width_(mask.width + 2), state_(static_cast<size_t>(mask.height + 2) * width_) {
    for (int32_t y = 0; y < mask.height; ++y) {
      uint8_t* state = state_.data() + pixel(y, 0);
      for (int32_t x = 0; x < mask.width; ++x) state[x] = mask.row(y)[x] | clear.row(y)[x] << 1;
    }
  }

  // Whether an outline passes on top of the pixel, and has not been walked along.
  bool begins_at(int32_t y, int32_t x) const {
    const uint8_t* state = state_.data() + pixel(y, x);
    return (*state & (kOn | kSeen)) == kOn && !(state[-width_] & kOn);
  }

  // The loop of pixel edges that begins on top of (y, x), the mask to its right hand: a place in the middle of each
  // edge.
  void walk(int32_t y, int32_t x, std::vector<Place>& loop) {
    constexpr double kDy[4] = {0, 1, 0, -1}, kDx[4] = {1, 0, -1, 0};  // east, south, west, north
    const int64_t ahead[4] = {1, width_, -1, -width_};
    const int64_t first = pixel(y, x);
    int64_t right = first;  // the pixel on the right hand
    double at_y = y, at_x = x;  // the corner
    int32_t heading = 0;
    loop.clear();
    do {
      loop.push_back({at_x + 0.5 * kDx[heading], at_y + 0.5 * kDy[heading], !(state_[right] & kClear)});
      if (heading == 0) state_[right] |= kSeen;
      at_y += kDy[heading], at_x += kDx[heading];
      const int32_t left = (heading + 3) & 3;
      const int64_t next = right + ahead[heading];
      if (state_[next + ahead[left]] & kOn) {
        right = next + ahead[left], heading = left;
      } else if (state_[next] & kOn) {
        right = next;
      } else {
        heading = (heading + 1) & 3;
      }
    } while (right != first || heading != 0);
  }

 private:
  static constexpr uint8_t kOn = 1, kClear = 2, kSeen = 4;

  int64_t pixel(int32_t y, int32_t x) const { return (y + 1) * width_ + x + 1; }

  int64_t width_;
  std::vector<uint8_t> state_;
};

// The mean of each place and its neighbours, kSmoothing to each side. A closed line goes on from its end to its start,
// and comes out twice in a row; an open one gets shorter.
void smooth(const std::vector<Place>& line, bool closed, std::vector<Place>& out) {
  const size_t count = line.size(), window = 2 * kSmoothing + 1;
  const size_t places = closed ? count : count - 2 * kSmoothing;
  out.clear();
  out.reserve(2 * places);
  for (size_t i = 0; i < places; ++i) {
    double x = 0.0, y = 0.0;
    size_t k = closed ? i + count - kSmoothing : i;
    for (size_t n = 0; n < window; ++n, ++k) {
      if (k >= count) k -= count;
      x += line[k].x, y += line[k].y;
    }
    out.push_back({x / window, y / window, false});
  }
  if (closed) {
    for (size_t i = 0; i < count; ++i) out.push_back(Place(out[i]));
  }
}

// Sums over the places before this one, around their mean, so that any stretch is fitted at the same cost.
struct Sums {
  double x = 0, y = 0, xx = 0, xy = 0, yy = 0, xz = 0, yz = 0, zz = 0;  // z = xx + yy
  double length = 0;                                                    // up to this place
};

struct Circle {
  double x, y, radius, turn;
  bool fits;
};

Circle fit_circle(const Sums& from, const Sums& to, double places, double length) {
  const double x = (to.x - from.x) / places, y = (to.y - from.y) / places;
  const double z = (to.xx - from.xx + to.yy - from.yy) / places;
  const double xx = (to.xx - from.xx) / places - x * x, yy = (to.yy - from.yy) / places - y * y;
  const double xy = (to.xy - from.xy) / places - x * y, zz = (to.zz - from.zz) / places - z * z;
  const double xz = (to.xz - from.xz) / places - x * z, yz = (to.yz - from.yz) / places - y * z;
  const double determinant = xx * yy - xy * xy;
  if (!(determinant > 1e-6)) return {};
  const double a = (xz * yy - yz * xy) / determinant / 2, b = (yz * xx - xz * xy) / determinant / 2;
  const double square = z - 2 * a * x - 2 * b * y + a * a + b * b;
  if (!(square > 0.0)) return {};
  const double radius = std::sqrt(square);
  // The residual is of squared distances: twice the radius times the distance from the circle.
  const double residual = zz - 4 * (a * xz + b * yz) + 4 * (a * a * xx + 2 * a * b * xy + b * b * yy);
  const double error = std::sqrt(std::max(residual, 0.0)) / (2 * radius);
  return {a, b, radius, length / radius, error < kMostError * radius + kMostErrorPx};
}

class Fitter {
 public:
  Fitter(const Mask& mask, OutlineArcs& found) : mask_(mask), found_(found) {}

  // Places one pixel edge apart, at least kStretches[0] of them.
  void fit(const std::vector<Place>& line, bool closed) {
    smooth(line, closed, smooth_);
    const auto all = static_cast<int64_t>(smooth_.size()), count = closed ? all / 2 : all;
    if (count < kStretches[0]) return;
    double middle_x = 0.0, middle_y = 0.0;
    for (const Place& place : smooth_) middle_x += place.x, middle_y += place.y;
    middle_x /= static_cast<double>(all), middle_y /= static_cast<double>(all);
    sum(all, middle_x, middle_y);
    for (int64_t start = 0; start < count; start += kStep) {
      ++found_.starts;
      Circle best{};
      for (const int32_t places : kStretches) {
        if (places > count || start + places > all) break;
        const Sums &from = sums_[start], &to = sums_[start + places];
        const Circle circle = fit_circle(from, to, places, sums_[start + places - 1].length - from.length);
        if (circle.fits && circle.turn >= kLeastTurn) best = circle;
        if (!circle.fits && places >= kPatience) break;
      }
      if (best.radius >= kLeastRadiusPx) keep({best.x + middle_x, best.y + middle_y, best.radius});
    }
  }

 private:
  void sum(int64_t all, double middle_x, double middle_y) {
    sums_.assign(all + 1, Sums{});
    double last_x = smooth_[0].x - middle_x, last_y = smooth_[0].y - middle_y;
    for (int64_t i = 0; i < all; ++i) {
      const Place& place = smooth_[i];
      const double x = place.x - middle_x, y = place.y - middle_y, z = x * x + y * y;
      Sums& now = sums_[i];
      const double dx = x - last_x, dy = y - last_y;
      now.length = (i ? sums_[i - 1].length : 0.0) + std::sqrt(dx * dx + dy * dy);
      sums_[i + 1] = {now.x + x, now.y + y, now.xx + x * x, now.xy + x * y, now.yy + y * y,
                      now.xz + x * z, now.yz + y * z, now.zz + z * z, 0.0};
      last_x = x, last_y = y;
    }
  }

  void keep(const Arc& arc) {
    const auto row = static_cast<int32_t>(std::clamp(std::floor(arc.y), 0.0, mask_.height - 1.0));
    const auto column = static_cast<int32_t>(std::clamp(std::floor(arc.x), 0.0, mask_.width - 1.0));
    if (mask_.row(row)[column]) found_.arcs.push_back(arc);
  }

  const Mask& mask_;
  OutlineArcs& found_;
  std::vector<Place> smooth_;
  std::vector<Sums> sums_;
};

}  // namespace

OutlineArcs fit_outlines(const Mask& mask, const Mask& clear) {
  OutlineArcs found;
  Fitter fitter(mask, found);
  Walker walker(mask, clear);
  std::vector<Place> loop, line;
  for (int32_t y = 0; y < mask.height; ++y) {
    for (int32_t x = 0; x < mask.width; ++x) {
      if (!walker.begins_at(y, x)) continue;
      walker.walk(y, x, loop);
      if (static_cast<int32_t>(loop.size()) < kStretches[0]) continue;
      const auto cut = std::find_if(loop.begin(), loop.end(), [](const Place& place) { return place.cut; });
      if (cut == loop.end()) {
        fitter.fit(loop, true);
        continue;
      }
      std::rotate(loop.begin(), cut, loop.end());
      for (size_t begin = 0; begin < loop.size();) {
        size_t end = begin;
        while (end < loop.size() && !loop[end].cut) ++end;
        line.assign(loop.begin() + begin, loop.begin() + end);
        if (static_cast<int32_t>(line.size()) >= kStretches[0]) fitter.fit(line, false);
        begin = end + 1;
      }
    }
  }
  return found;
}

}  // namespace rbc
