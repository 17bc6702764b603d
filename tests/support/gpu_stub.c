/* Answers what torch asks the CUDA runtime before it lowers a graph, as a machine with one H100 would. */
#include <string.h>
#include "driver_types.h"

static int fill(struct cudaDeviceProp *p) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "NVIDIA H100 80GB HBM3");
  p->major = 9;
  p->multiProcessorCount = 132;
  p->warpSize = 32;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->regsPerBlock = 65536;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->totalGlobalMem = 85899345920ULL;
  p->l2CacheSize = 52428800;
  return 0;
}

int cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) { return fill(p); }
int cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int d) { return fill(p); }
int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
int cudaDeviceCanAccessPeer(int *v, int a, int b) { *v = 0; return 0; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = 0; return 0; }
int cudaGetDevice(int *d) { *d = 0; return 0; }
int cudaSetDevice(int d) { return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
int _ZN3c104cuda14GetDeviceCountEPi(int *n) { *n = 1; return 0; }
int _ZN3c104cuda14MaybeSetDeviceEa(signed char d) { return 0; }
signed char _ZN3c104cuda14ExchangeDeviceEa(signed char d) { return 0; }
signed char _ZN3c104cuda19MaybeExchangeDeviceEa(signed char d) { return 0; }
