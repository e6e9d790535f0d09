// The core's parts by themselves, and the client against a server in memory that does what no real one would: a chapter
// each in units/. usage: units FOLDER (testkit/esp32scene.py writes it); prints one line for each failure.
#include "units/story.hpp"

int failures, checks;
World world;

void text_chapter();
void http_chapter();
void doorbell_chapter();
void records_chapter();
void trust_chapter();
void arrives_chapter();
void refused_chapter();
void trials_chapter();

int main(int words, char** word) {
  if (words < 2) return 2;
  world.folder = word[1];
  std::ifstream about(world.folder + "/words");
  about >> world.id >> world.type >> world.product >> world.old_version >> world.new_version >> world.now;
  world.old_image = desk::contents(world.folder + "/old.bin");
  world.new_image = desk::contents(world.folder + "/new.bin");
  world.image_root = desk::contents(world.folder + "/image.root");
  world.director_root = desk::contents(world.folder + "/director.root");
  std::ifstream list(world.folder + "/list");
  for (std::string path, file; list >> path >> file;) world.answers.files[path] = desk::contents(world.folder + "/" + file);
  world.answers.check = desk::contents(world.folder + "/check.json");
  world.answers.image_version = world.new_version;
  text_chapter();
  http_chapter();
  doorbell_chapter();
  records_chapter();
  trust_chapter();
  arrives_chapter();
  refused_chapter();
  trials_chapter();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
